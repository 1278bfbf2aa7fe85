"""Work on frame results: editing and review."""
