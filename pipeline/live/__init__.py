"""Live runs: the pipeline on cameras and streams, with bounded latency."""
