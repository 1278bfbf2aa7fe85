"""Exports: masks of a store in the formats of datasets, annotation tools and video editors."""
