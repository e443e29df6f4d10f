"""What runs a training: a loop around forward pass, backward pass and optimizer step."""
