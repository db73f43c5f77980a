"""The house keeps its walls: import contracts, names, function lengths, what an import costs."""

import ast
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("asuka_infer", "db", "demo", "study", "analysis", "training")
LONGEST_AT_P95 = 40
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc"}


def _modules() -> list[Path]:
    return [ROOT / "app.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]


def test_every_import_contract_is_kept() -> None:
    finished = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]


def test_ninety_five_of_a_hundred_functions_fit_on_a_screen() -> None:
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in _modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert statistics.quantiles(lengths, n=20)[-1] <= LONGEST_AT_P95


def test_no_module_is_named_after_nothing() -> None:
    assert not [path for path in _modules() if path.stem in NAMES_THAT_SAY_NOTHING]


def _modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(finished.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import asuka_infer",
        "import asuka_infer.catalog, asuka_infer.images, asuka_infer.holes, asuka_infer.batch",
        "import study.api, study.service, study.ingest, study.tab",
        "import db.engine, db.migrate, db.models",
        "import analysis.load, analysis.rates, analysis.figures",
        "import demo.tab",
        "import app",
    ],
)
def test_torch_is_loaded_by_no_import_but_a_method_s_own(statement: str) -> None:
    assert "torch" not in _modules_after(statement)


def test_importing_asuka_infer_loads_nothing_heavy() -> None:
    heavy = {"torch", "cv2", "PIL", "scipy", "skimage", "gradio", "pydantic", "pandas"}
    assert not heavy & _modules_after("import asuka_infer")
