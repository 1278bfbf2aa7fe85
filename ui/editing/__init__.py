"""Editing sessions: a person's prompts on one video, and the masks tracked from them."""
