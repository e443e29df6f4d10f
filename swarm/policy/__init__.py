"""What may happen and what happens next: pure decisions over the state."""
