"""The page: a session in a browser (docs/reference/page.md). Nothing of Gradio but in `app`."""
