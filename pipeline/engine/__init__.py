"""Execution of a pipeline: threads, queue, and passes over a source."""
