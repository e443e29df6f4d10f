"""The process that records what happens and carries out what follows."""
