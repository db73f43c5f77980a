"""Figures as SVG and PNG files, drawn by kaleido where it is installed, else by an installed Chromium."""

import base64
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH = 900  # pixels; a figure's own height is kept
HEIGHT = 460
SCALE = 2  # PNG pixels per CSS pixel, so that print is sharp
BROWSER_SECONDS = 120
VIRTUAL_MS = 60_000  # the page's clock runs ahead, so waiting costs nothing


class PicturesUnavailableError(RuntimeError):
    """Nothing here can draw; the message says what to install."""


def draw(figures: Mapping[str, go.Figure], formats: Sequence[str] = ("svg", "png")) -> dict[tuple[str, str], bytes]:
    """Every figure in every format, by name and format.

    Raises:
        PicturesUnavailableError: when neither kaleido nor a Chromium is installed, or the browser fails.
    """
    if importlib.util.find_spec("kaleido"):
        return {
            (name, kind): figure.to_image(kind, width=WIDTH, height=_height(figure), scale=SCALE)
            for name, figure in figures.items()
            for kind in formats
        }
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise PicturesUnavailableError("No static pictures: install kaleido, or Chromium from your distribution.")
    return _draw_in_browser(browser, figures, formats)


def _draw_in_browser(
    browser: str, figures: Mapping[str, go.Figure], formats: Sequence[str]
) -> dict[tuple[str, str], bytes]:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(_page(figures, formats), encoding="utf-8")
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile",
            f"--virtual-time-budget={VIRTUAL_MS}", "--dump-dom", page.as_uri(),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, check=True, timeout=BROWSER_SECONDS)  # noqa: S603 - a fixed command on our own file
        except (subprocess.SubprocessError, OSError) as problem:
            raise PicturesUnavailableError(f"Chromium did not draw the figures ({problem}).") from problem
    found = re.findall(r'<pre data-name="([^"]*)" data-kind="(\w+)">([^<]*)</pre>', done.stdout.decode("utf-8"))
    pictures = {(unescape(name), kind): _content(unescape(text)) for name, kind, text in found}
    missing = [name for name in figures for kind in formats if (name, kind) not in pictures]
    if missing:
        raise PicturesUnavailableError(f"Chromium did not draw {missing[0]}; install kaleido instead.")
    return pictures


def _page(figures: Mapping[str, go.Figure], formats: Sequence[str]) -> str:
    jobs = [
        {"name": name, "figure": json.loads(figure.to_json() or "{}"), "formats": list(formats)}
        for name, figure in figures.items()
    ]
    # "</" inside a script would end it; JSON may write the slash with a backslash.
    data = json.dumps(jobs).replace("</", "<\\/")
    return (
        f"<!doctype html><meta charset='utf-8'><body><script>{get_plotlyjs()}</script><script>const jobs = {data};"
        f"""
        (async () => {{
          for (const job of jobs) {{
            const height = job.figure.layout.height || {HEIGHT};
            for (const kind of job.formats) {{
              const url = await Plotly.toImage(job.figure, {{
                format: kind, width: {WIDTH}, height: height, scale: kind === "png" ? {SCALE} : 1,
              }});
              const out = document.createElement("pre");
              out.dataset.name = job.name;
              out.dataset.kind = kind;
              out.textContent = url;
              document.body.append(out);
            }}
          }}
        }})();</script>"""
    )


def _height(figure: Any) -> int:
    return figure.layout.height or HEIGHT


def _content(url: str) -> bytes:
    head, _, body = url.partition(",")
    return base64.b64decode(body) if head.endswith(";base64") else unquote(body).encode("utf-8")
