"""From a name to a model that runs, and the embedded model's files."""
