"""The README stays true: every method, setting and command it should name is there, and every picture exists."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asuka_infer.catalog import METHODS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", METHODS)
def test_every_method_is_in_the_readme(key: str) -> None:
    assert f"`{key}`" in README


def test_every_setting_of_the_app_is_in_the_readme() -> None:
    program = "import app, json; print(json.dumps(list(app.AppSettings.model_fields)))"
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    names: list[str] = json.loads(finished.stdout)
    variables = ["DATABASE_URL" if name == "database_url" else f"ASUKA_{name.upper()}" for name in names]
    assert [variable for variable in variables if f"`{variable}`" not in README] == []


def test_every_file_that_the_readme_points_to_exists() -> None:
    pictures = re.findall(r"\]\(((?!https?:)[^)#]+)\)", README)
    assert pictures
    assert [path for path in pictures if not (ROOT / path).exists()] == []


def test_the_space_front_matter_names_the_gradio_that_is_locked() -> None:
    locked = re.search(r"^gradio==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert locked is not None
    assert f"sdk_version: {locked[1]}" in README
