"""What agents use to take part: tasks and leases, inbox, reviews, MCP."""
