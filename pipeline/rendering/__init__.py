"""Results as pictures for the eye."""
