"""The run of a pipeline: threads, queue, and the passes over a source."""
