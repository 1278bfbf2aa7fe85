"""Image encoders (torch)."""
