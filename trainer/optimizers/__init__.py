"""The optimizers: a file here, or a module of another package, brings one or several (`swarm.kinds` finds both)."""
