"""Live runs on the camera page, and their recordings."""
