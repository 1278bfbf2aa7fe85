"""The learned memory: what objects look like, read by attention, and masks of all of them jointly."""
