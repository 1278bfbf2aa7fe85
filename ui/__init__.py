"""The page: a view of a session in a browser (`docs/page.md`). Nothing of Gradio but in `app`."""
