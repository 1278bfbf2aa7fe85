"""Training of the objectness head on labeled stills."""
