"""What the demo says, in English and Chinese, from one catalogue that Python and the browser share."""

import json
from collections.abc import Mapping
from pathlib import Path

import gradio as gr

STATIC = Path(__file__).parent / "static"

TEXTS: Mapping[str, Mapping[str, str]] = json.loads((STATIC / "texts.json").read_text(encoding="utf-8"))
"""Language -> key -> words. `{name}` in them is filled in where they are used."""

ENGLISH = TEXTS["en"]

interface = gr.I18n(**{language: dict(words) for language, words in TEXTS.items()})
"""`interface("run")` labels a Gradio component in the visitor's language; `launch(i18n=interface)` sends the words."""


def static_text(*names: str) -> str:
    """The files of that name in demo/static, one after the other."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)
