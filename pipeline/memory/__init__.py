"""The learned memory: what objects look like, read by attention; masks of all jointly."""
