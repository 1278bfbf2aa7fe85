"""Draw results as images and videos."""
