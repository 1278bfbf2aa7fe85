"""A session: what a person does to one video, and what follows from it."""
