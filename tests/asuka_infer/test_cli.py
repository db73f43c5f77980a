"""The commands as a user types them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asuka_infer import batch, cli
from asuka_infer.catalog import METHODS, Method, Readiness, find_method
from asuka_infer.holes import read_hole, write_hole_png
from asuka_infer.images import encode_png, read_image
from asuka_infer.inpaint import inpaint
from asuka_infer.run_record import RunRecord
from asuka_infer.settings import knobs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture, its hole, and folders of two of each; the current folder."""
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    hole = np.zeros((40, 60), bool)
    hole[10:20, 20:40] = True
    for name in ("images", "holes"):
        (tmp_path / name).mkdir()
    for name in ("ape", "bee"):
        (tmp_path / "images" / f"{name}.png").write_bytes(encode_png(image))
        write_hole_png(tmp_path / "holes" / f"{name}.png", hole)
    (tmp_path / "photo.png").write_bytes(encode_png(image))
    write_hole_png(tmp_path / "hole.png", hole)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = cli.main(words)
    except SystemExit as stop:
        code = int(str(stop.code))
    said = capsys.readouterr()
    return code, said.out, said.err


def fill_words(**changes: str) -> list[str]:
    said = {"method": "telea", "image": "photo.png", "hole": "hole.png", "out": "out.png"} | changes
    return ["inpaint", *(word for name, value in said.items() for word in (f"--{name}", value))]


def batch_words(**changes: str) -> list[str]:
    said = {"methods": "telea,biharmonic", "images": "images", "holes": "holes", "out": "out"} | changes
    return ["batch", "--quiet", *(word for name, value in said.items() for word in (f"--{name}", value))]


def test_methods_lists_every_key_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "methods")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(METHODS)


def test_methods_as_json_says_what_each_needs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(run(capsys, "methods", "--json")[1])
    assert [row["key"] for row in rows] == list(METHODS)
    telea = next(row for row in rows if row["key"] == "telea")
    assert telea["ready"] is True
    assert telea["needs"] == {"gpu": False, "download_mb": 0, "memory_mb": 0, "packages": []}


@pytest.mark.parametrize("key", ["telea", "fsr"])
def test_one_method_shows_its_settings_as_one_would_type_them(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "methods", key)
    assert code == 0
    for knob in knobs(find_method(key).load().settings):
        assert f"--set {knob.name}={knob.default}" in out
    shown: dict[str, Any] = json.loads(run(capsys, "methods", key, "--json")[1])
    assert [row["name"] for row in shown["settings"]] == [knob.name for knob in knobs(find_method(key).load().settings)]


def test_inpaint_writes_the_pixels_of_the_one_function_with_their_record_inside(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *fill_words(), "--seed", "9", "--set", "radius=3", "--context", "whole")
    assert (code, err) == (0, "")
    assert "0 pixels changed outside the hole" in out
    picture, hole = read_image(folder / "photo.png"), read_hole(folder / "hole.png")
    with Image.open(folder / "out.png") as file:
        record = RunRecord.from_json(file.info["asuka_infer"])
    method = find_method("telea").load().with_settings(**record.settings)
    assert record.seed == 9
    assert dict(record.framing) == {"context": None, "tiles": True}
    assert record.settings["radius"] == 3
    again = inpaint(method, "telea", picture, hole, seed=9, framing=cli.Framing(None, tiles=True))
    assert np.array_equal(read_image(folder / "out.png").pixels, again.image)


def test_a_photograph_keeps_its_orientation_transparency_and_exif(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    turned = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 40, 4), dtype=np.uint8), "RGBA")
    turned.save(folder / "turned.webp", lossless=True, exact=True, exif=exif.tobytes())
    assert run(capsys, *fill_words(image="turned.webp"))[0] == 0
    before, after = read_image(folder / "turned.webp"), read_image(folder / "out.png")
    hole = read_hole(folder / "hole.png")
    assert after.size == before.size == (40, 60)
    assert after.alpha is not None
    assert before.alpha is not None
    assert np.array_equal(after.alpha[~hole], before.alpha[~hole])
    assert np.array_equal(after.pixels[~hole], before.pixels[~hole])
    assert after.exif is not None
    assert b"Maker" in after.exif


BAD_WORDS: list[tuple[Sequence[str], str]] = [
    ([], "methods|fetch|inpaint|batch|import-results"),
    (["paint"], "invalid choice"),
    (["methods", "telia"], "did you mean telea"),
    (fill_words(method="nope"), "no method 'nope'"),
    (fill_words(image="nowhere.png"), "nowhere.png"),
    (fill_words(image="text.png"), "text.png is no"),
    (fill_words(hole="small.png"), "small.png is 9x9"),
    (fill_words(hole="black.png"), "black.png marks nothing"),
    (fill_words(hole="white.png"), "white.png marks every pixel"),
    (fill_words(out="out.jpg"), "out.jpg is no .png"),
    (fill_words(out="no/where.png"), "no is no folder"),
    (fill_words(out="photo.png"), "photo.png is also an input"),
    (fill_words(seed="-1"), "whole number from 0 to"),
    (fill_words(seed="99999999999"), "whole number from 0 to"),
    (fill_words(set="radius=0"), "from 1 to 50"),
    (fill_words(set="radios=1"), "did you mean radius"),
    (fill_words(context="wide"), "neither 'whole' nor a number"),
    (fill_words(context="nan"), "neither 'whole' nor a number"),
    (fill_words(compositing="blur"), "invalid choice"),
    (["inpaint", "--method", "telea"], "required: --image, --hole, --out"),
    (batch_words(methods=","), "No method was named"),
    (batch_words(methods="telea,nope"), "no method 'nope'"),
    (batch_words(images="nowhere"), "nowhere is no folder"),
    (batch_words(workers="0"), "no whole number of 1 or more"),
    (batch_words(engine="cloud"), "invalid choice"),
    (batch_words(set="fsr.quality=best"), "not among telea, biharmonic"),
    (batch_words(set="radius=3"), "no setting 'radius'"),
    (batch_words(out="photo.png"), "photo.png"),
]


@pytest.mark.parametrize(("words", "named"), BAD_WORDS)
def test_bad_usage_and_bad_input_get_one_sentence_and_exit_code_2(
    words: Sequence[str], named: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "text.png").write_text("no picture")
    for name, levels in (("small", np.eye(9)), ("black", np.zeros((40, 60))), ("white", np.ones((40, 60)))):
        Image.fromarray((levels * 255).astype(np.uint8)).save(folder / f"{name}.png")
    before = sorted(folder.rglob("*"))
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert named in err
    assert err.startswith("asuka_infer")
    assert err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_a_method_that_is_not_ready_says_what_makes_it_ready(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeping = Method(
        key="sleeping",
        title="Sleeping",
        summary="Sleeps.",
        citation="nobody",
        licence="none",
        load=find_method("telea").load,
        readiness=lambda: Readiness(ready=False, how_to="its weights are missing; run `wake it`."),
    )

    def find(_: str) -> Method:
        return sleeping

    monkeypatch.setattr(cli, "find_method", find)
    code, _, err = run(capsys, *fill_words(method="sleeping"))
    assert (code, err) == (2, "asuka_infer: sleeping is not ready here: its weights are missing; run `wake it`.\n")
    assert not (folder / "out.png").exists()


def test_batch_makes_then_keeps_and_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*batch_words(), "--set", "telea.radius=3"]
    assert run(capsys, *words) == (0, "4 made, 0 stale ones made again, 0 already there, 0 failed\n", "")
    assert run(capsys, *words) == (0, "0 made, 0 stale ones made again, 4 already there, 0 failed\n", "")
    assert run(capsys, *batch_words(), "--set", "telea.radius=4")[1] == (
        "0 made, 2 stale ones made again, 2 already there, 0 failed\n"
    )
    assert json.loads((folder / "out/telea/ape.json").read_text())["settings"]["radius"] == 4


def test_batch_names_every_failure_does_the_rest_and_exits_with_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "images/ape.png").write_bytes(b"no picture")
    (folder / "images/cat.jpg").write_bytes(b"")
    code, out, err = run(capsys, *batch_words())
    assert code == 1
    assert out == "2 made, 0 stale ones made again, 0 already there, 4 failed\n"
    assert "pictures without a hole, left out: cat.jpg." in err
    assert err.count("ape.png: ") == 2
    assert "Traceback" not in err


@pytest.mark.usefixtures("folder")
def test_the_progress_bar_and_the_account_go_to_different_streams(capsys: pytest.CaptureFixture[str]) -> None:
    words = batch_words()
    words.remove("--quiet")
    code, out, err = run(capsys, *words)
    assert code == 0
    assert out.startswith("4 made")
    assert "4/4" in err


@pytest.mark.usefixtures("folder")
def test_a_worker_that_dies_is_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: Any) -> None:
        raise batch.WorkerDiedError("A worker process died during telea of ape (out of memory?).")

    monkeypatch.setattr(batch, "run_batch", dead)
    code, _, err = run(capsys, *batch_words())
    assert (code, err.count("\n")) == (1, 1)


def test_threads_are_calmed_before_torch_and_a_wish_of_the_user_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    cli.calm_threads()
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["OMP_NUM_THREADS"]) == ("PASSIVE", "7")
    monkeypatch.delenv("OMP_NUM_THREADS")
    cli.calm_threads()
    assert 1 <= int(os.environ["OMP_NUM_THREADS"]) <= cli.MOST_THREADS


def test_the_real_command_fills_without_loading_torch(folder: Path) -> None:
    code = (
        "import sys; from asuka_infer.cli import main; "
        f"code = main({fill_words(method='nearest-neighbour')!r}); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    listed = subprocess.run(
        [sys.executable, "-m", "asuka_infer", "methods"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert listed.stdout.splitlines()[-1].startswith(list(METHODS)[-1])


def test_nobody_reading_on_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m asuka_infer methods --json | head -c 1; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
