"""The files of the participant's page: small, complete in both languages, and telling nobody anything."""

import json
import re
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "study"
SCRIPTS = sorted((STUDY / "web").glob("*.js"))
CATALOGUES = sorted((STUDY / "texts").glob("*.json"))
MOST_SCRIPT = 60_000  # bytes, uncompressed
MADE_UP = {"_title", "_text"}


def catalogue(path: Path) -> dict[str, str]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_scripts_are_small() -> None:
    assert sum(len(script.read_bytes()) for script in SCRIPTS) <= MOST_SCRIPT


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_every_catalogue_says_the_same_things_with_the_same_values(path: Path) -> None:
    english, other = catalogue(STUDY / "texts" / "en.json"), catalogue(path)
    assert list(other) == list(english)
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", other[key])) == sorted(re.findall(r"\{\w+\}", text)), key
        assert other[key].strip() == other[key] != "", key


def test_every_text_that_is_said_exists_and_every_text_is_said() -> None:
    source = "\n".join(script.read_text(encoding="utf-8") for script in SCRIPTS)
    known = set(catalogue(STUDY / "texts" / "en.json"))
    said = set(re.findall(r'\bsay\("(\w+)"', source))
    assert said <= known
    built = {key for key in known - said if not re.search(rf'"{key}"', source)}
    stems = set(re.findall(r'"(\w+)"', source)) | set(re.findall(r"\b(\w+):", source))
    unsaid = {key for key in built if not any(key == stem or key.startswith(f"{stem}_") for stem in stems)}
    assert unsaid == set()


def test_nothing_in_the_page_points_to_another_host() -> None:
    for file in (path for path in (STUDY / "web").rglob("*") if path.is_file()):
        addresses = re.findall(r"https?://[^\s\"'`)>]+", file.read_text(encoding="utf-8"))
        assert [address for address in addresses if "www.w3.org" not in address] == [], file.name


def test_the_page_runs_no_script_written_into_it() -> None:
    page = (STUDY / "web" / "page.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"\son\w+=", page) == []
