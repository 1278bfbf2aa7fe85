"""What results of frames are, and what can be said of them and done to them."""
