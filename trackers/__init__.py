"""Tracking without networks: motion, assignment, flow, appearance and the life of a track."""
