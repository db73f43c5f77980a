"""From folders to tables: what is measured, kept, refused and left out; and that people's votes join the scores."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.models import alexnet, squeezenet1_0
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from analysis.human_vs_metric import read_metrics, system_means, vote_agreement
from analysis.simulate import Design, Truth, simulate_votes
from asuka_infer import evaluate
from asuka_infer.cli import main
from asuka_infer.evaluate import Choices, EvaluateError, gather
from asuka_infer.holes import encode_hole_png, read_hole, write_hole_png
from asuka_infer.images import encode_png, read_image, to_float
from asuka_infer.metrics.clip import ClipVision
from asuka_infer.metrics.distributions import perceptual_distance
from asuka_infer.metrics.features import SqueezeNet, perceptual_distances, pooled_features
from asuka_infer.metrics.instruments import Instrument, InstrumentError, find_instruments
from asuka_infer.metrics.looks import Look
from asuka_infer.metrics.lpips import LpipsAlex
from asuka_infer.metrics.pieces import Answer, Piece, Task, measure_task
from asuka_infer.metrics.pixels import psnr, ssim
from asuka_infer.metrics.scoreboard import Scoreboard
from asuka_infer.metrics.spread import SpreadError, spread
from asuka_infer.metrics.store import Store, StoreError

ROOT = Path(__file__).parents[2]
NAMES = [f"000{number}" for number in range(6)]
METHODS = ("blur", "noise", "truth")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(squeezenet1_0(weights=None).state_dict(), folder / "squeezenet1_0_random.pth")
    return folder


@pytest.fixture(autouse=True)
def no_other_weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASUKA_WEIGHTS", str(tmp_path_factory.mktemp("none")))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("images/inside", "images/outside", "holes", *(f"results/{method}" for method in METHODS)):
        (tmp_path / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        truth = rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)
        hole = np.zeros((64, 48), bool)
        hole[10 : 30 + number, 8:40] = True
        (tmp_path / "images" / ("inside" if number < 2 else "outside") / f"{name}.png").write_bytes(encode_png(truth))
        write_hole_png(tmp_path / "holes" / f"{name}.png", hole)
        for method, filled in {
            "blur": np.full_like(truth, 128),
            "noise": rng.integers(0, 256, truth.shape, dtype=np.uint8),
            "truth": truth,
        }.items():
            image = np.where(hole[..., None], filled, truth)
            (tmp_path / "results" / method / f"{name}.png").write_bytes(encode_png(image))
    return tmp_path


def gathered(folders: Path, **said: Any) -> evaluate.Gathered:
    return gather(folders / "results", folders / "images", folders / "holes", **said)


def instruments(weights: Path) -> tuple[Instrument, ...]:
    return find_instruments(["squeezenet"], weights)[0]


def run(folders: Path, choices: Choices, out: str = "out", **said: Any) -> Scoreboard:
    return evaluate.evaluate(gathered(folders, **said), choices, folders / out)


def pictures(folders: Path, method: str) -> tuple[list[Any], list[Any], list[Any]]:
    results = [read_image(folders / f"results/{method}/{name}.png").pixels for name in NAMES]
    truths = [read_image(next((folders / "images").rglob(f"{name}.png"))).pixels for name in NAMES]
    return results, truths, [read_hole(folders / f"holes/{name}.png") for name in NAMES]


def test_the_table_holds_the_means_of_the_published_functions(folders: Path, weights: Path) -> None:
    board = run(folders, Choices(instruments(weights)))
    network = SqueezeNet(weights / "squeezenet1_0_random.pth")

    for row in (row for row in board.rows if row.group == "all"):
        given = pictures(folders, row.method)
        assert row.pictures == 6
        assert row.cells["psnr"].value == pytest.approx(psnr(*given).mean())
        assert row.cells["ssim"].value == pytest.approx(ssim(*given).mean())
        expected = perceptual_distance(*given, network=network).mean()
        assert row.cells["perceptual-squeezenet"].value == pytest.approx(expected, abs=1e-5)
        assert row.cells["fid-squeezenet"].value is None
        assert row.cells["u-ids-squeezenet"].note == "needs 100 images, there are 6"
    assert [row.group for row in board.rows] == ["all"] * 3 + ["inside"] * 3 + ["outside"] * 3
    best = next(row for row in board.rows if row.method == "truth")
    assert (best.cells["psnr"].place, best.cells["l1"].place, best.cells["l1"].value) == (1, 1, 0)


def test_every_file_says_the_same_and_the_warnings_are_in_the_tables(folders: Path, weights: Path) -> None:
    path = folders / "results/blur/0003.png"
    image = read_image(path).pixels.copy()
    image[:2] = 255 - image[:2]
    path.write_bytes(encode_png(image))
    (folders / "results/noise/stray.png").write_bytes(encode_png(image))
    board = run(folders, Choices(instruments(weights)))
    told = json.loads((folders / "out/table.json").read_text())
    table = pd.read_csv(folders / "out/table.csv")
    markdown, latex = ((folders / f"out/table.{suffix}").read_text() for suffix in ("md", "tex"))

    first = board.rows[0]
    assert told["rows"][0]["cells"]["psnr"]["value"] == first.cells["psnr"].value == table["psnr"][0]
    assert table["psnr_low"][0] < table["psnr"][0] < table["psnr_high"][0]
    assert first.cells["changed-outside"].value == 2 * 48 / 6
    for text in (markdown, latex, table["notes"][0], (folders / "out/comparison.html").read_text()):
        assert "blur changed known pixels in 1 of 6 images" in text
        assert "noise: 1 extra files of no photograph were ignored (stray)" in text
        assert "needs 100 images, there are 6" in text
    assert '<div id="comparison" class="plotly-graph-div"' in (folders / "out/comparison.html").read_text()
    assert "**70.000**" in markdown
    assert r"\textbf{70.000}" in latex
    assert r"\underline{" in latex


@pytest.mark.parametrize("changed", [{"batch": 1}, {"batch": 5}, {"workers": 2, "batch": 2}, {"engine": "ray"}])
def test_no_number_depends_on_batches_workers_or_engine(
    folders: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    choices = Choices(instruments(weights))
    run(folders, choices)
    run(folders, replace(choices, **changed), "other")

    for name in ("table.csv", "table.json", "scores.parquet"):
        assert (folders / "out" / name).read_bytes() == (folders / "other" / name).read_bytes()


def pieces(folders: Path, instruments: tuple[Instrument, ...]) -> tuple[Piece, ...]:
    """Every method's result of every photograph, of which everything is to be measured."""
    scores = tuple(one for one in instruments if one.kind != "features")
    features = tuple(one for one in instruments if one.kind == "features")
    made: list[Piece] = []
    for name in NAMES:
        truth = next((folders / "images").rglob(f"{name}.png")).read_bytes()
        hole = (folders / f"holes/{name}.png").read_bytes()
        for method in METHODS:
            result = (folders / f"results/{method}/{name}.png").read_bytes()
            truths = features if method == METHODS[0] else ()
            key = f"{method}{name}"
            made.append(Piece(f"{method}/{name}", key, name, result, truth, hole, scores, features, truths))
    return tuple(made)


def test_a_network_looks_at_every_picture_once_whatever_is_made_of_it(
    folders: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    look = SqueezeNet.look

    def watched(network: SqueezeNet, images: torch.Tensor) -> Look:
        looked.append(len(images))
        return look(network, images)

    monkeypatch.setattr(SqueezeNet, "look", watched)

    answer = measure_task(Task(pieces(folders, instruments(weights)), "cpu"))
    assert looked == [1] * 6 * 4  # a photograph and three results of it
    assert len(answer.features) == 6 * 4
    assert len(answer.scores) == 6 * 3 * 2


def test_what_a_network_tells_of_shared_looks_is_what_it_tells_of_each_pair(folders: Path, weights: Path) -> None:
    network = SqueezeNet(weights / "squeezenet1_0_random.pth")
    distance, features = instruments(weights)[1:]
    answer = measure_task(Task(pieces(folders, instruments(weights)), "cpu"))
    scores = {key: numbers[distance.name] for key, name, numbers in answer.scores if name == distance.identity}
    vectors = {key: vector for key, name, vector in answer.features if name == features.identity}

    for method in METHODS:
        results, truths, _ = pictures(folders, method)
        expected = perceptual_distances(results, truths, network)
        assert [scores[f"{method}{name}"] for name in NAMES] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        own = np.stack([vectors[f"{method}{name}"] for name in NAMES])
        assert np.allclose(own, pooled_features(results, network), rtol=1e-4, atol=1e-5)
    truths = pictures(folders, "truth")[1]
    assert np.allclose(np.stack([vectors[name] for name in NAMES]), pooled_features(truths, network), atol=1e-5)


def test_lpips_and_clip_are_told_of_the_composite_and_of_the_hole_alone(folders: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(alexnet(weights=None).state_dict(), tmp_path / "alex.pth")
    widths = enumerate((64, 192, 384, 256, 256))
    heads = {f"lin{tap}.model.1.weight": torch.rand(1, width, 1, 1) for tap, width in widths}
    torch.save(heads, tmp_path / "heads.pth")
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16,
        projection_dim=8,
    )  # fmt: skip
    cast("Any", CLIPVisionModelWithProjection(config)).save_pretrained(tmp_path / "clip")
    lpips = Instrument("lpips", "distance", "lpips-alex", (str(tmp_path / "alex.pth"), str(tmp_path / "heads.pth")))
    similar = Instrument("clip-similarity-hole", "similarity", "clip", (str(tmp_path / "clip"),))
    told = measure_task(Task(pieces(folders, (lpips, similar)), "cpu")).scores
    numbers = {key: told for key, _, one in told for key, told in ((f"{key}/{name}", n) for name, n in one.items())}
    results, truths, holes = pictures(folders, "noise")

    networks = LpipsAlex(tmp_path / "alex.pth", tmp_path / "heads.pth"), ClipVision(tmp_path / "clip")
    for name, result, truth, hole in zip(NAMES, results, truths, holes, strict=True):
        a, b = (torch.from_numpy(to_float(each))[None] for each in (result, truth))
        inside = torch.from_numpy(hole)
        with torch.no_grad():
            assert numbers[f"noise{name}/lpips"] == pytest.approx(float(networks[0].distance(a, b)), rel=1e-4)
            cosine = float(networks[1].similarity(a * inside, b * inside))
        assert numbers[f"noise{name}/clip-similarity-hole"] == pytest.approx(cosine, abs=1e-5)
        assert numbers[f"truth{name}/lpips"] == 0


@pytest.mark.parametrize(("side", "fits"), [(20, False), (21, True)])
def test_pictures_smaller_than_a_network_sees_are_named(
    weights: Path,
    side: int,
    fits: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    small = encode_png(np.zeros((side, 40, 3), np.uint8))
    hole = encode_hole_png(np.eye(side, 40, dtype=bool))
    distance = instruments(weights)[1]
    answer = measure_task(Task((Piece("m/a", "k", "t", small, small, hole, (distance,), (), ()),), "cpu"))

    assert answer.problems == (
        {} if fits else {"m/a": "it is 40x20, but squeezenet sees no less than 21 pixels a side"}
    )
    assert len(answer.scores) == fits


def test_passes_of_a_fixed_size_are_filled_up_and_tell_the_same(
    folders: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(pieces(folders, instruments(weights)[1:]), "cpu")
    alone = measure_task(task)
    monkeypatch.setattr("asuka_infer.metrics.looks.CPU_PASS", 5)

    told = measure_task(task)
    assert [key for key, *_ in told.features] == [key for key, *_ in alone.features]
    assert np.allclose([v for *_, v in told.features], [v for *_, v in alone.features], rtol=1e-4, atol=1e-5)
    for (key, _, numbers), (other, _, expected) in zip(told.scores, alone.scores, strict=True):
        assert key == other
        assert numbers == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_what_was_measured_is_not_measured_again_until_its_content_changes(
    folders: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = Choices(instruments(weights))
    run(folders, choices)
    before = (folders / "out/table.json").read_bytes()
    measured: list[str] = []

    def watched(task: Task) -> Answer:
        measured.extend(piece.name for piece in task.pieces)
        return measure_task(task)

    monkeypatch.setattr(evaluate, "measure_task", watched)
    run(folders, choices)
    assert measured == []
    assert (folders / "out/table.json").read_bytes() == before
    (folders / "results/noise/0001.png").write_bytes((folders / "results/blur/0001.png").read_bytes())
    run(folders, choices)
    assert measured == []  # the same content was measured as blur's
    write_hole_png(folders / "holes/0002.png", np.eye(64, 48, dtype=bool))
    run(folders, choices)
    assert measured == [f"{method}/0002" for method in METHODS]


def test_a_killed_run_goes_on_where_it_was(folders: Path, weights: Path) -> None:
    choices = Choices(instruments(weights), batch=1)
    program = (
        "import os, signal, sys; from asuka_infer.metrics.store import Store; from asuka_infer.cli import main\n"
        "keep, calls = Store.keep, []\n"
        "def dying(*words):\n"
        "    keep(*words); calls.append(1)\n"
        "    len(calls) == 7 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "Store.keep = dying\n"
        "main(sys.argv[1:])"
    )
    words = f"evaluate --results results --images images --holes holes --out out --weights {weights} --batch 1 --quiet"
    killed = subprocess.run([sys.executable, "-c", program, *words.split()], cwd=folders, env=path(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (folders / "out/table.json").exists()
    steps: list[int] = []
    with Store(folders / "out/measured.sqlite") as store:
        assert store.has("score", *first_score(folders, weights))
    evaluate.evaluate(gathered(folders), choices, folders / "out", step=steps.append)
    run(folders, choices, "fresh")
    assert (folders / "out/table.json").read_bytes() == (folders / "fresh/table.json").read_bytes()
    assert sum(steps) == 18


def path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def first_score(folders: Path, weights: Path) -> tuple[str, str]:
    files = (folders / "results/blur/0000.png", folders / "images/inside/0000.png", folders / "holes/0000.png")
    digests = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256(digests.encode()).hexdigest(), instruments(weights)[0].identity


@pytest.mark.parametrize("fault", ["missing", "renamed", "hole", "size", "damaged", "hole size"])
def test_what_does_not_fit_is_named_or_left_out_for_everybody_if_asked(
    folders: Path, weights: Path, fault: str
) -> None:
    result, hole = folders / "results/noise/0004.png", folders / "holes/0004.png"
    named = {
        "missing": "noise has no result of 1 photographs (0004)",
        "renamed": "but 1 of other names (0004_out): rename them",
        "hole": "0004.png has no hole in",
        "size": "noise/0004: it is 9x9 but the photograph is 48x64",
        "damaged": "noise/0004: The picture",
        "hole size": "noise/0004: The picture is 9x9 but the picture is 48x64",
    }
    if fault == "missing":
        result.unlink()
    elif fault == "renamed":
        result.rename(result.with_stem("0004_out"))
    elif fault == "hole":
        hole.unlink()
    elif fault == "size":
        result.write_bytes(encode_png(np.zeros((9, 9, 3), np.uint8)))
    elif fault == "damaged":
        result.write_bytes(result.read_bytes()[:300])
    else:
        write_hole_png(hole, np.eye(9, dtype=bool))
    choices = Choices(instruments(weights)[:1])
    with pytest.raises(EvaluateError) as told:
        run(folders, choices)
    assert named[fault] in str(told.value)
    assert "--lenient" in str(told.value)
    board = run(folders, replace(choices, lenient=True), lenient=True)
    assert {row.pictures for row in board.rows if row.group == "all"} == {5}
    assert any("0004" in note and "left out" in note for note in board.notes)


def test_folders_that_hold_nothing_are_refused(folders: Path, weights: Path) -> None:
    (folders / "empty").mkdir()
    for results in ("nowhere", "empty"):
        with pytest.raises(EvaluateError, match=r"give one with|holds no results"):
            gather(folders / results, folders / "images", folders / "holes")
    (folders / "results/blur/0000.jpg").write_bytes(b"")
    with pytest.raises(EvaluateError, match="share a name"):
        gathered(folders)
    single = gather(folders / "results/truth", folders / "images", folders / "holes")
    assert single.methods == ("truth",)
    del weights


def test_networks_that_are_not_here_are_refused_by_name_and_lpips_is_noted(weights: Path) -> None:
    found, notes = find_instruments(["squeezenet"], weights)

    assert [one.name for one in found] == ["pixels", "perceptual-squeezenet", "squeezenet"]
    assert "LPIPS is not told: put alexnet-owt-*.pth from https://download.pytorch.org" in notes[0]
    for family in ("inception", "clip"):
        with pytest.raises(InstrumentError, match=f"--features {family}"):
            find_instruments([family], weights)


def test_scores_of_every_picture_join_what_people_chose(folders: Path, weights: Path) -> None:
    run(folders, Choices(instruments(weights)))
    table = read_metrics(folders / "out/scores.parquet")
    assert set(table["image"]) == set(NAMES)
    assert system_means(table, "psnr")["blur"] == pytest.approx(psnr(*pictures(folders, "blur")).mean())

    truth = Truth(dict(zip(METHODS, (0.0, -1.0, 2.0), strict=True)))
    votes = replace(simulate_votes(Design(participants=20, images=6, trials=6), truth, seed=0), images=tuple(NAMES))
    told = vote_agreement(votes, votes.criteria[0], table, "psnr")
    rows = table[table["metric"] == "psnr"]
    values = {
        (str(method), str(image)): float(value)
        for method, image, value in rows[["method", "image", "value"]].to_numpy().tolist()
    }
    right = n = 0.0
    for row in range(len(votes)):
        if votes.outcome[row] == 0 and votes.criterion[row] == 0 and votes.counted[row]:
            shown = [values[votes.methods[code], NAMES[votes.image[row]]] for code in votes.shown[row]]
            n += 1
            right += shown[votes.position[row]] == max(shown)
    assert (told.right, told.n) == (right, n)


def test_the_command_prints_the_table_and_refuses_in_one_sentence(
    folders: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", *(f"--{name}={folders / name}" for name in ("results", "images", "holes", "out"))]

    assert main([*words, f"--weights={weights}", "--quiet", "--features=none"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("## all (6 images)")
    assert "LPIPS is not told" in said.err
    assert main([*words, "--quiet", "--features=vgg"]) == 2
    assert "no features called vgg" in capsys.readouterr().err
    assert main([*words, "--quiet", "--layout=coco"]) == 2
    assert "expected COCO_val2014_000000000042.jpg" in capsys.readouterr().err


class FakeRay(types.ModuleType):
    """Ray's few functions that are used, run at once and in this process."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = types.SimpleNamespace(RayError=LookupError)
        self.said: dict[str, Any] = {}
        self.options: dict[str, int] = {}
        self.down = False

    def init(self, **said: Any) -> None:
        self.said = said

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, function: Callable[..., Any]) -> Any:
        def options(**said: int) -> Any:
            self.options = said
            return types.SimpleNamespace(remote=submit)

        def submit(task: object) -> Callable[[], Any]:
            return partial(function, task)

        return types.SimpleNamespace(options=options)

    def get(self, one: Callable[[], Any]) -> Any:
        return one()

    def shutdown(self) -> None:
        self.down = True


def halved(number: int) -> float:
    if number == 99:
        raise LookupError("node lost")
    return number / 2


def test_the_ray_engine_keeps_order_uses_the_named_cluster_and_reports_a_lost_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setenv("RAY_ADDRESS", "ray://somewhere:10001")
    assert list(spread(halved, range(9), engine="ray", workers=2, gpus=1)) == [number / 2 for number in range(9)]
    assert fake.said["address"] == "ray://somewhere:10001"
    assert "num_cpus" not in fake.said
    assert fake.options == {"num_gpus": 1}
    with pytest.raises(SpreadError, match="node lost"):
        list(spread(halved, [1, 99], engine="ray"))
    assert fake.down


def test_engines_refuse_what_they_cannot_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SpreadError, match=r"pip install ray"):
        spread(halved, [1], engine="ray")
    with pytest.raises(SpreadError, match="give 1 or more"):
        spread(halved, [1], workers=0)
    (tmp_path / "store").write_text("no database, but some text that is long enough to look like one" * 20)
    with pytest.raises(StoreError, match="cannot be used as a store"):
        Store(tmp_path / "store")
