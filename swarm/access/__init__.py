"""How a command, a script or an agent reaches a run, and with which rights."""
