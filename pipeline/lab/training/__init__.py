"""Training of the segmenter (needs the extra `train`)."""
