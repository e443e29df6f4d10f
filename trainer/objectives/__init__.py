"""What a model is asked of its rows: the next token, the tokens that were masked, or which of several labels a text has."""
