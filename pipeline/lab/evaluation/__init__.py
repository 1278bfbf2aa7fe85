"""Evaluation on images with known masks; torch is imported only to run a checkpoint."""
