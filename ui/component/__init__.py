"""A plain Gradio component of the page's editor, for anybody's own app."""
