"""What a run writes, going on with it, and tracking parts of it anew."""
