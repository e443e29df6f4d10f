"""The training methods: a file here, or a module of another package, is one (`swarm.kinds` finds both)."""
