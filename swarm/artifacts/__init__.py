"""Files of a run that outlive it: published adapters, their lineage, metrics, and what may be pruned."""
