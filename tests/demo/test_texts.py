"""What a Chinese visitor is told: every translation belongs to something that the code really says."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import asuka_infer
import demo
from asuka_infer.images import Picture
from demo.endpoint import _job  # pyright: ignore[reportPrivateUsage] - the only place that doubts a seed
from demo.engine import DemoEngine, Job, Painted
from demo.files import WEBP_LONGEST_SIDE, convert
from demo.outpainting import Border, extend, read_border
from demo.texts import language_of, summary_of, translated
from tests.demo.painting import photo, save
from tests.demo.serve_demo import EXTRA

ROOTS = [Path(str(package.__file__)).parent for package in (demo, asuka_infer)]
CHINESE: dict[str, dict[str, str]] = json.loads((ROOTS[0] / "static" / "chinese.json").read_text(encoding="utf-8"))


def test_every_translated_sentence_is_said_somewhere() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for root in ROOTS for path in root.rglob("*.py")]
    said = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert [sentence for sentence in CHINESE["sentences"] if sentence not in said] == []


def engine() -> DemoEngine:
    return DemoEngine(methods={method.key: method for method in EXTRA}, max_pixels=10_000)


def opened(path: Path) -> None:
    engine().open_photo(Painted(photo=path))


def masked(path: Path, levels: int | np.ndarray[Any, Any]) -> None:
    mask = np.full((60, 80), levels, np.uint8) if isinstance(levels, int) else levels
    engine().open_mask(save(mask, path), (60, 80))


def ran(key: str, **settings: int) -> None:
    picture, hole = Picture(photo(80, 60)), np.eye(60, 80, dtype=np.bool_)
    list(engine().run("me", picture, hole, [Job(key, 0, settings)]))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def cut(path: Path) -> Path:
    save(photo(80, 60), path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def bomb(path: Path) -> Path:
    """Pillow refuses by itself what declares twice its limit."""
    Image.new("1", (20_000, 20_000)).save(path)
    return path


def wide(path: Path) -> Path:
    Image.new("RGB", (WEBP_LONGEST_SIDE + 1, 1)).save(path)
    return path


WRONG: list[Callable[[Path], object]] = [
    lambda path: opened(save(photo(200, 100), path)),
    lambda path: opened(bomb(path)),
    lambda path: opened(written(path, "Dear reader")),
    lambda path: opened(written(path, "")),
    lambda path: opened(cut(path)),
    lambda path: masked(path, 0),
    lambda path: masked(path, 255),
    lambda path: masked(path, np.eye(60, 60, dtype=np.uint8) * 255),
    lambda _path: engine().plan([], 0, 1),
    lambda _path: engine().plan(["slow"], 0, 99),
    lambda _path: engine().plan(["far"], 0, 1),
    lambda _path: ran("prior", level=999),
    lambda _path: ran("broken"),
    lambda _path: _job("telea", -1, None),
    lambda path: convert(wide(path), "webp"),
    lambda _path: read_border(("a lot", "", "", ""), (60, 80)),
    lambda _path: read_border(("900 %", "", "", ""), (60, 80)),
    lambda _path: extend(Picture(photo(80, 60)), Border(left=300), max_pixels=10_000),
]


def what_goes_wrong(folder: Path) -> list[str]:
    said: list[str] = []
    for number, wrong in enumerate(WRONG):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - what is said is looked at below
            _as_value_error(wrong, folder / f"{number}.png")
        said.append(str(caught.value))
    return said


def _as_value_error(wrong: Callable[[Path], object], path: Path) -> None:
    try:
        wrong(path)
    except Exception as error:
        raise ValueError(str(error)) from error


def test_what_goes_wrong_is_said_in_chinese_and_no_pattern_is_stale(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = what_goes_wrong(tmp_path)
    assert [sentence for sentence in said if not re.search("[\u4e00-\u9fff]", translated(sentence, "zh"))] == []
    assert [translated(sentence, "en") for sentence in said] == said
    assert "the weights are damaged" in caplog.text
    stale = [pattern for pattern in CHINESE["patterns"] if not any(re.fullmatch(pattern, each) for each in said)]
    assert stale == []


def test_what_nobody_translated_stays_as_it_is() -> None:
    assert translated("The moon is full.", "zh") == "The moon is full."
    assert summary_of("unheard-of", "A new method.", "zh") == "A new method."
    assert "先验" in summary_of("asuka-mini", "English", "zh")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-GB,zh;q=0.5", "en"), ("ZH", "zh"), ("", "en")],
)
def test_the_browser_says_which_language(accepted: str, language: str) -> None:
    request: Any = SimpleNamespace(headers={"accept-language": accepted})
    assert language_of(request) == language
    assert language_of(None) == "en"
