"""The domain: config, plan, events, state, decisions, log, agents, command line."""
