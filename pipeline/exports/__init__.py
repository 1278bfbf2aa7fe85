"""Exports: the masks of a store as files that datasets, annotation tools and editors take."""
