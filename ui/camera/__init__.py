"""Cameras that are watched: live runs, what they show, and recordings."""
