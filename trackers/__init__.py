"""Tracking without networks: motion, assignment, flow, appearance and track states."""
