"""Sources, segmenters, tracking, stores and exports; the rooms of the pipeline."""
