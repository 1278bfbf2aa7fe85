"""Evaluates tracking on annotated videos: J and F next to baselines, HOTA of seeded runs."""
