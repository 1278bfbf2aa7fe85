"""Training of the learned memory on sequences made of labelled stills."""
