"""Measuring an adapter and its bare base: fitness of the files, held-out loss, answers."""
