"""Published checkpoints, where they are kept, and reading them."""
