"""Click an object in a video and track it: a Gradio app of one component, as for a Space.

python examples/space/app.py
"""

import gradio as gr

from maskstream.ui import click_to_track

with gr.Blocks(title="maskstream", analytics_enabled=False) as demo:
    gr.Markdown("# Click an object, track it\nUpload a short video, click, *Track*, download.")
    click_to_track(upload_mb=200, age_h=2)

if __name__ == "__main__":
    demo.launch(max_file_size="200mb")
