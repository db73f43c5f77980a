"""The notebooks run from top to bottom, are short, define nothing, and keep their pictures."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "analysis/notebooks").glob("*.ipynb"))
LONGEST_CELL = 8


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def test_the_six_notebooks_are_there() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_define_nothing_and_pictures_are_kept(path: Path) -> None:
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        lines = cell.source.splitlines()
        assert len(lines) <= LONGEST_CELL
        assert not [line for line in lines if line.startswith(("def ", "class ", "async def "))]
        assert cell.execution_count is not None
    kinds = {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert "image/png" in kinds or path.stem.startswith("06")
    assert "application/vnd.plotly.v1+json" not in kinds


def test_all_notebooks_run_where_jupyter_starts_them() -> None:
    # One kernel for all: starting it takes longer than most notebooks.
    together = read(NOTEBOOKS[0])
    together.cells = [cell for path in NOTEBOOKS for cell in read(path).cells if cell.cell_type == "code"]
    for number, cell in enumerate(together.cells):
        cell.id, cell.outputs = f"c{number}", []
    NotebookClient(together, timeout=120, resources={"metadata": {"path": str(NOTEBOOKS[0].parent)}}).execute()
