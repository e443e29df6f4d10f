"""What changes a stream's learning rate while it trains, beside its schedule: one module per kind."""
