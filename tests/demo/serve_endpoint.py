"""Serves the demo tab and the endpoint: `python tests/demo/serve_endpoint.py PORT SWEEP_S KEEP_S`."""

import sys

import gradio as gr

from asuka_infer.datasets.sample_pictures import SAMPLE_PICTURES
from demo.endpoint import add_endpoint
from demo.engine import DemoEngine
from demo.tab import CSS, build_demo_tab
from demo.texts import interface

if __name__ == "__main__":
    port, sweep, keep = (int(word) for word in sys.argv[1:])
    engine = DemoEngine(samples=SAMPLE_PICTURES[:1])
    with gr.Blocks(title="Endpoint", delete_cache=(sweep, keep)) as page:
        build_demo_tab(engine, max_megabytes=5)
        add_endpoint(engine)
    page.queue(max_size=20).launch(
        server_name="127.0.0.1",
        server_port=port,
        ssr_mode=False,
        footer_links=[],
        quiet=True,
        max_file_size="5mb",
        css=CSS,
        i18n=interface,
    )
