"""Find and open models by name; the embedded model's files."""
