"""Runs the notebooks and keeps their outputs, figures as PNG, so that a code host shows them: a developer's command.

`python -m analysis.keep_outputs`, after a change to a notebook or to what it calls.
"""

import base64
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from plotly import graph_objects as go

from analysis.example import DATABASE_VARIABLE, SIMULATED
from analysis.pictures import draw

NOTEBOOKS = Path(__file__).parent / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
SECONDS = 600


def main() -> int:
    """Run every notebook in its folder and write it back."""
    os.environ[DATABASE_VARIABLE] = SIMULATED  # what is kept must not depend on who voted on this machine
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook: Any = nbformat.read(path, as_version=4)
        client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(NOTEBOOKS)}})
        client.execute()
        _figures_to_png(notebook)
        nbformat.write(notebook, path)
    return 0


def _figures_to_png(notebook: Any) -> None:
    outputs = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if PLOTLY in output.get("data", {})
    ]
    figures = {str(place): go.Figure(output.data[PLOTLY]) for place, output in enumerate(outputs)}
    pictures = draw(figures, ("png",)) if figures else {}
    for place, output in enumerate(outputs):
        output.data = {"image/png": base64.b64encode(pictures[str(place), "png"]).decode("ascii")}
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("execution", None)  # times of the run would change with every run


if __name__ == "__main__":
    sys.exit(main())
