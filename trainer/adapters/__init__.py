"""The adapter kinds: a file here, or a module of another package, is one (`swarm.kinds` finds both)."""
