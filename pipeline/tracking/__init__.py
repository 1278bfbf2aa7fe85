"""Tracking of frames: keyframes, flow, tracks, seeding and label maps."""
