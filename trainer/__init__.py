"""Worker processes: data preparation, training, validation, evaluation; the heavy libraries live here only."""
