"""From a config to a placed plan: bases, GPUs, memory and disk, before anything starts."""
