"""Outputs of a run, resuming it, and tracking parts of it again."""
