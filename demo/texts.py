"""What the demo says, in English and Chinese, from one catalogue that Python and the browser share."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import gradio as gr

STATIC = Path(__file__).parent / "static"

TEXTS: Mapping[str, Mapping[str, str]] = json.loads((STATIC / "texts.json").read_text(encoding="utf-8"))
"""Language -> key -> words. `{name}` in them is filled in where they are used."""

ENGLISH = TEXTS["en"]

interface = gr.I18n(**{language: dict(words) for language, words in TEXTS.items()})
"""`interface("run")` labels a Gradio component in the visitor's language; `launch(i18n=interface)` sends the words."""

Language = Literal["en", "zh"]

_CHINESE: Mapping[str, Mapping[str, Any]] = json.loads((STATIC / "chinese.json").read_text(encoding="utf-8"))
"""What is said in English by code that knows no language: whole sentences, patterns of those that name something, and
the methods' summaries by key."""

_PATTERNS = {re.compile(pattern): template for pattern, template in _CHINESE["patterns"].items()}


def language_of(request: gr.Request | None) -> Language:
    """The visitor's: Chinese where the browser prefers it, as the page's own scripts have it, else English."""
    accepted = str(request.headers.get("accept-language", "")) if request is not None else ""
    return "zh" if accepted.lower().startswith("zh") else "en"


def translated(said: str, language: Language) -> str:
    """An error's or a setting's sentence in that language; one that nobody has translated stays English."""
    if language == "en":
        return said
    if said in _CHINESE["sentences"]:
        return str(_CHINESE["sentences"][said])
    for pattern, template in _PATTERNS.items():
        if found := pattern.fullmatch(said):
            return str(template).format(*found.groups())
    return said


def summary_of(key: str, english: str, language: Language) -> str:
    """A method's summary in that language, `english` where nobody has translated it."""
    return english if language == "en" else str(_CHINESE["methods"].get(key, english))


def static_text(*names: str) -> str:
    """The files of that name in demo/static, one after the other."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)
