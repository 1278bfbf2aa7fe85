"""The browser page: video editing sessions and live cameras. Only `server.app` imports Gradio."""
