"""Many videos: tasks from files and manifests, run by a pool of processes or a Ray cluster."""
