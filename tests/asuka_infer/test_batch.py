"""Folders in, folders out: what is made, kept, made again, and what a kill leaves behind."""

import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asuka_infer import batch
from asuka_infer.batch import (
    ABANDONED_AFTER,
    BatchError,
    Choices,
    Outcome,
    Pairing,
    Task,
    local_engine,
    pair_up,
    ray_engine,
    run_batch,
    run_task,
    seed_for,
    strangers,
)
from asuka_infer.catalog import find_method
from asuka_infer.holes import read_hole, write_hole_png
from asuka_infer.images import encode_png, read_image
from asuka_infer.inpaint import Framing, inpaint
from asuka_infer.run_record import RunRecord

ROOT = Path(__file__).parents[2]
NAMES = ["ape", "bee", "cat.v2"]
CHOICES = Choices(("telea", "nearest-neighbour"), seed=5)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "holes").mkdir()
    random = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        image = random.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        hole = np.zeros(image.shape[:2], bool)
        hole[5:15, 10 : 20 + number] = True
        (tmp_path / "images" / f"{name}.png").write_bytes(encode_png(image))
        write_hole_png(tmp_path / "holes" / f"{name}.png", hole)
    return tmp_path


def pairing(folders: Path) -> Pairing:
    return pair_up(folders / "images", folders / "holes")


def run(folders: Path, choices: Choices = CHOICES, workers: int = 1) -> dict[str, str]:
    """State by "method/stem"."""
    outcomes = list(run_batch(pairing(folders).pairs, choices, folders / "out", local_engine(workers)))
    assert len(outcomes) == len({(one.method, one.stem) for one in outcomes})
    return {f"{one.method}/{one.stem}": f"{one.state} {one.message}".strip() for one in outcomes}


def everything(state: str) -> dict[str, str]:
    return {f"{method}/{name}": state for method in CHOICES.methods for name in NAMES}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_method_gets_a_folder_with_a_png_and_a_record_per_picture(folders: Path) -> None:
    assert run(folders) == everything("made")
    assert sorted(snapshot(folders / "out")) == sorted(
        f"{method}/{name}.{suffix}" for method in CHOICES.methods for name in NAMES for suffix in ("png", "json")
    )
    record = RunRecord.from_json((folders / "out/telea/cat.v2.json").read_text())
    assert record.method == "telea"
    assert record.seed == seed_for(5, "cat.v2")


def test_a_batch_gives_the_very_pixels_of_the_one_function(folders: Path) -> None:
    run(folders)
    for key in CHOICES.methods:
        for name in NAMES:
            picture = read_image(folders / "images" / f"{name}.png")
            hole = read_hole(folders / "holes" / f"{name}.png", picture.size)
            alone = inpaint(find_method(key).load(), key, picture, hole, seed=seed_for(5, name))
            assert np.array_equal(read_image(folders / "out" / key / f"{name}.png").pixels, alone.image)


def test_several_processes_write_the_same_files(folders: Path) -> None:
    run(folders)
    alone = snapshot(folders / "out")
    for name in alone:
        (folders / "out" / name).unlink()
    assert run(folders, workers=2) == everything("made")
    again = snapshot(folders / "out")
    assert sorted(alone) == sorted(again)
    for name in (name for name in alone if name.endswith(".png")):
        assert np.array_equal(read_image(alone[name]).pixels, read_image(again[name]).pixels)


def test_a_second_run_keeps_everything_and_touches_no_file(folders: Path) -> None:
    run(folders)
    before = snapshot(folders / "out")
    assert run(folders) == everything("kept")
    assert snapshot(folders / "out") == before


def test_a_new_hole_makes_only_its_own_results_again(folders: Path) -> None:
    run(folders)
    hole = np.zeros((31, 40), bool)
    hole[1:4, 1:4] = True
    write_hole_png(folders / "holes/bee.png", hole)
    states = run(folders)
    assert states == everything("kept") | {
        f"{method}/bee": "made made with another hole_sha256" for method in CHOICES.methods
    }
    assert run(folders) == everything("kept")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (replace(CHOICES, seed=6), "seed"),
        (replace(CHOICES, framing=Framing(1.5)), "framing"),
        (replace(CHOICES, framing=Framing(None)), "framing"),
        (replace(CHOICES, compositing="seamless"), "compositing"),
        (replace(CHOICES, settings={key: {"largest_side": 32} for key in CHOICES.methods}), "settings"),
    ],
)
def test_results_asked_for_differently_are_stale(folders: Path, changed: Choices, named: str) -> None:
    run(folders)
    assert run(folders, changed) == everything(f"made made with another {named}")
    assert run(folders, changed) == everything("kept")


def test_damaged_missing_and_changed_files_are_made_again(folders: Path) -> None:
    run(folders)
    out = folders / "out/telea"
    before = read_image(out / "ape.png").pixels
    (out / "ape.png").write_bytes(encode_png(255 - before))
    (out / "bee.png").write_bytes((out / "bee.png").read_bytes()[:200])
    (out / "cat.v2.json").write_text("{")
    (folders / "out/nearest-neighbour/ape.png").unlink()
    (folders / "out/nearest-neighbour/bee.json").unlink()
    states = run(folders)
    assert states["telea/ape"] == "made its PNG was changed"
    assert states["telea/bee"] == "made its PNG is damaged"
    assert states["telea/cat.v2"].startswith("made its record cannot be read")
    assert states["nearest-neighbour/ape"] == "made its PNG is missing"
    assert states["nearest-neighbour/bee"] == "made"
    assert np.array_equal(read_image(out / "ape.png").pixels, before)
    assert run(folders) == everything("kept")


def test_one_bad_file_is_reported_by_name_and_the_rest_goes_on(folders: Path) -> None:
    (folders / "images/ape.png").write_bytes(b"no picture")
    write_hole_png(folders / "holes/bee.png", np.eye(9, dtype=bool))
    states = run(folders)
    assert states["telea/ape"].startswith("failed ape.png: ")
    assert states["telea/bee"].startswith("failed The hole bee.png is 9x9 but bee.png is 40x31")
    assert states["telea/cat.v2"] == "made"
    assert not (folders / "out/telea/ape.png").exists()


def test_a_file_that_vanishes_is_a_failure_of_its_own(folders: Path) -> None:
    pairs = pairing(folders).pairs
    (folders / "images/bee.png").unlink()
    outcomes = list(run_batch(pairs, replace(CHOICES, methods=("telea",)), folders / "out", local_engine(1)))
    assert {one.stem: one.state for one in outcomes} == {"ape": "made", "bee": "failed", "cat.v2": "made"}
    assert "could not be read" in next(one.message for one in outcomes if one.stem == "bee")


def test_a_failure_inside_a_method_is_reported_with_its_kind(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(batch, "inpaint", explode)
    assert set(run(folders).values()) == {"failed MemoryError: no room"}


def test_pictures_without_holes_and_holes_without_pictures_are_named(folders: Path) -> None:
    (folders / "holes/bee.png").unlink()
    write_hole_png(folders / "holes/dog.png", np.eye(9, dtype=bool))
    (folders / "images/.hidden.png").write_bytes(b"")
    (folders / "images/notes.txt").write_text("")
    found = pairing(folders)
    assert [pair.stem for pair in found.pairs] == ["ape", "cat.v2"]
    assert (found.without_hole, found.without_image) == (("bee.png",), ("dog.png",))


def test_one_hole_serves_all_pictures(folders: Path) -> None:
    found = pair_up(folders / "images", folders / "holes/ape.png")
    assert [pair.hole.name for pair in found.pairs] == ["ape.png"] * 3


@pytest.mark.parametrize("what", ["missing", "empty", "same name", "no match"])
def test_folders_that_do_not_fit_are_refused(folders: Path, what: str) -> None:
    images, holes = folders / "images", folders / "holes"
    if what == "missing":
        images = folders / "nowhere"
    elif what == "empty":
        images = folders / "empty"
        images.mkdir()
    elif what == "same name":
        (images / "ape.jpg").write_bytes(b"")
    else:
        holes = folders / "others"
        holes.mkdir()
        write_hole_png(holes / "dog.png", np.eye(9, dtype=bool))
    with pytest.raises(BatchError):
        pair_up(images, holes)


def test_results_of_pictures_no_longer_given_are_pointed_out_and_left_alone(folders: Path) -> None:
    run(folders)
    (folders / "images/bee.png").unlink()
    found = strangers(pairing(folders).pairs, CHOICES, folders / "out")
    assert [path.relative_to(folders / "out").as_posix() for path in found] == [
        "telea/bee.png",
        "nearest-neighbour/bee.png",
    ]
    assert all(path.exists() for path in found)


def test_old_unfinished_files_are_swept_away_and_fresh_ones_are_not(folders: Path) -> None:
    out = folders / "out/telea"
    out.mkdir(parents=True)
    old, fresh = out / ".0123.partial", out / ".4567.partial"
    old.touch()
    fresh.touch()
    past = fresh.stat().st_mtime - 2 * ABANDONED_AFTER
    os.utime(old, (past, past))
    run(folders)
    assert (old.exists(), fresh.exists()) == (False, True)


def test_a_picture_s_seed_depends_on_the_batch_seed_and_its_name_alone() -> None:
    # sha256("0/ape") and sha256("1/ape"), first four bytes, computed with sha256sum.
    assert f"{seed_for(0, 'ape'):08x}" == "e326e98d"
    assert f"{seed_for(1, 'ape'):08x}" == "51c0b36e"


def test_engines_refuse_what_they_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BatchError, match="give 1 or more"):
        local_engine(0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BatchError, match=r"pip install ray"):
        ray_engine(1)


def wait_for_first_result(process: "subprocess.Popen[str]", out: Path) -> None:
    while process.poll() is None and not any(out.rglob("*.json")):
        pass
    assert process.poll() is None, process.stderr.read() if process.stderr else ""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_batch_leaves_no_half_file_and_goes_on_where_it_was(folders: Path, how: int, workers: int) -> None:
    big = np.random.default_rng(1).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    hole = np.zeros((700, 700), bool)
    hole[100:600, 100:600] = True
    for name in ["dog", "elk", "fox", "gnu", "hen", "ibex"]:
        (folders / "images" / f"{name}.png").write_bytes(encode_png(big))
        write_hole_png(folders / "holes" / f"{name}.png", hole)
    out = folders / "out"
    words = ["batch", "--methods", "nearest-neighbour", "--images", "images", "--holes", "holes", "--out", "out"]
    few = ["--set", "rounds=1", "--seed", "5"]
    process = subprocess.Popen(
        # A shell that starts the tests in the background has them ignore SIGINT, and children inherit that.
        ["env", "--default-signal=INT", sys.executable, "-m", "asuka_infer", *words, "--workers", str(workers), *few],
        cwd=folders,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_first_result(process, out)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: the workers hear it too
    else:
        process.send_signal(how)  # as a service manager does: the workers have to notice
    _, errors = process.communicate(timeout=240)  # ends when nobody holds the pipe any more, no worker either
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    records = {path.stem for path in out.rglob("*.json")}
    assert 0 < len(records) < 9
    for path in out.rglob("*.png"):
        read_image(path)
    if how == signal.SIGINT:
        assert not list(out.rglob(".*"))
    choices = Choices(("nearest-neighbour",), seed=5, settings={"nearest-neighbour": {"rounds": 1}})
    pairs = [pair for pair in pairing(folders).pairs if pair.stem in records]
    assert {one.state for one in run_batch(pairs, choices, out, local_engine(1))} == {"kept"}


def test_tasks_are_read_only_when_their_turn_comes(folders: Path) -> None:
    read: list[str] = []

    def slow_engine(tasks: Iterable[Task]) -> Iterator[Outcome]:
        for task in tasks:
            read.append(f"{task.method}/{task.stem}")
            yield run_task(task)

    outcomes = run_batch(pairing(folders).pairs, CHOICES, folders / "out", slow_engine)
    next(outcomes)
    assert read == ["telea/ape"]


class FakeRay(types.ModuleType):
    """Ray's few functions that are used, run at once and in this process."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.said: list[dict[str, Any]] = []
        self.options: list[dict[str, Any]] = []
        self.down = False
        self.exceptions = types.SimpleNamespace(RayError=RuntimeError)

    def init(self, **said: Any) -> None:
        self.said.append(said)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, function: Any) -> Any:
        def options(**said: Any) -> Any:
            self.options.append(said)
            return types.SimpleNamespace(remote=submit)

        def submit(task: Task) -> tuple[Any, Task]:
            return function, task

        return types.SimpleNamespace(options=options)

    def wait(self, waiting: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return waiting[-num_returns:], waiting[:-num_returns]

    def get(self, one: Any) -> Outcome:
        function, task = one
        if task.stem == "bee":
            raise RuntimeError("node lost")
        return function(task)

    def shutdown(self) -> None:
        self.down = True


def test_the_ray_engine_uses_the_named_cluster_and_survives_a_lost_task(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setenv("RAY_ADDRESS", "ray://somewhere:10001")
    choices = replace(CHOICES, methods=("telea",))
    outcomes = {one.stem: one for one in run_batch(pairing(folders).pairs, choices, folders / "out", ray_engine(2))}
    assert {stem: one.state for stem, one in outcomes.items()} == {"ape": "made", "bee": "failed", "cat.v2": "made"}
    assert "node lost" in outcomes["bee"].message
    assert fake.said[0]["address"] == "ray://somewhere:10001"
    assert "num_cpus" not in fake.said[0]
    assert fake.down
    assert json.loads((folders / "out/telea/ape.json").read_text())["method"] == "telea"
