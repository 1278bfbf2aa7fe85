"""Published checkpoints: registry, cache and loading."""
