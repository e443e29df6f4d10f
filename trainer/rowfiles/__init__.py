"""What `swarm data` does: each command reads rows, writes a new file of rows and, beside it, a manifest of what it was made from."""
