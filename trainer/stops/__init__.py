"""What ends a training before its last step: a file here, or a module of another package, is one (`swarm.kinds` finds both)."""
