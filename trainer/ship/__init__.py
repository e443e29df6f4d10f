"""What leaves a run: adapters merged into their bases and converted for other programs."""
