"""Learned memory: object appearance read by attention, masks of all objects predicted jointly."""
