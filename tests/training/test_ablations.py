"""The ablations: rows differ in the part they are named after, end as if never stopped, and say what was measured."""

import csv
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models import squeezenet1_0

from asuka_infer.asuka.mini import MiniModel, load_mini, save_mini
from training import ablations
from training.ablations import FRESH, ROWS, TABLES, Row, Setup, beginning, markdown, trained, verdict
from training.alignment import AlignmentStage
from training.cli import main
from training.loop import Moment, read_state
from training.presets import MODELS, Bench

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(1)
    save_mini(MiniModel(MODELS["tiny"]), folder)
    return folder


@pytest.fixture
def setup(exported: Path, bench: Bench, tmp_path: Path) -> Setup:
    return Setup(exported, bench, tmp_path, "tiny", steps=2)


def row_of(key: str) -> Row:
    return next(row for row in ROWS if row.key == key)


def read_rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "ablations.csv").read_text(encoding="utf-8").splitlines()))


def batch(row: Row, setup: Setup) -> dict[str, Tensor]:
    """What the row's own stage learns from in its first step."""
    stage = ablations.stages_of(row, setup)[1 if row.part == "mae" else 0][1]
    moment = Moment(0, 0.0, np.random.default_rng(0), torch.Generator().manual_seed(0), torch.device("cpu"))
    return dict(stage.batch(moment))


def test_rows_of_a_table_begin_alike_and_with_the_exported_weights_in_all_other_parts(
    setup: Setup, exported: Path
) -> None:
    given = dict(load_mini(exported).model.named_parameters())
    for part in TABLES:
        first, *others = [dict(beginning(row, setup).named_parameters()) for row in ROWS if row.part == part]
        for one in (first, *others):
            kept = {name for name in given if not name.startswith(FRESH[part])}
            assert all(torch.equal(one[name], given[name]) for name in kept)
        if part != "alignment":  # kinds of alignments have parameters of their own
            assert all(torch.equal(first[name], other[name]) for other in others for name in given)
        assert any(not torch.equal(first[name], given[name]) for name in given if name.startswith(FRESH[part]))


def test_rows_of_a_table_see_the_same_photographs_and_differ_in_what_they_are_named_after(setup: Setup) -> None:
    random, holes = (batch(row_of(key), setup) for key in ("mae-pretrained", "mae-finetuned"))
    assert torch.equal(random["pictures"], holes["pictures"])
    assert torch.equal(random["order"], holes["order"])
    assert holes["holes"].any()
    assert not random["holes"].any()

    first, *others = [batch(row, setup) for row in ROWS if row.part == "alignment"]
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)

    plain, cond, colour, latent = (batch(row, setup) for row in ROWS if row.part == "decoder")
    for other in (plain, cond, latent):
        assert all(torch.equal(colour[name], other[name]) for name in colour if name != "recoloured")
    assert torch.equal(colour["recoloured"], latent["recoloured"])
    assert torch.allclose(cond["recoloured"], cond["pictures"], atol=1e-5)
    assert float((colour["recoloured"] - colour["pictures"]).abs().max()) > 0.01
    told = {row.key: ablations.stages_of(row, setup)[0][1].recipe for row in ROWS if row.part == "decoder"}
    differing = {name for name, value in told["decoder-colour"].items() if told["decoder-latent"][name] != value}
    assert differing == {"augmented"}


def test_a_row_that_was_stopped_ends_as_if_it_never_was(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_of("align-linear")
    never = trained(row, replace(setup, run=setup.run / "never"))
    whole = AlignmentStage.batch

    def stopping(stage: AlignmentStage, moment: Moment) -> dict[str, Tensor]:
        os.kill(os.getpid(), signal.SIGTERM)
        return whole(stage, moment)

    monkeypatch.setattr(AlignmentStage, "batch", stopping)
    assert trained(row, setup) is None
    assert read_state(setup.run / row.key / "alignment").step == 1
    monkeypatch.undo()
    after = trained(row, setup)
    assert never is not None
    assert after is not None
    assert all(torch.equal(a, b) for a, b in zip(never.parameters(), after.parameters(), strict=True))


def test_one_command_trains_measures_and_tells_the_rows_of_all_tables(
    exported: Path,
    pictures_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The first and the last row of each table: the time of the others would tell nothing new.
    told_of = ("mae-pretrained", "mae-finetuned", "align-linear", "align-self", "decoder-plain", "decoder-latent")
    monkeypatch.setattr(ablations, "ROWS", [row_of(key) for key in told_of])
    for name in ("images", "masks", "shapes"):
        (tmp_path / name).mkdir()
    for file in sorted(pictures_folder.glob("*.png"))[:2]:
        shutil.copy(file, tmp_path / "images")
        Image.fromarray(np.pad(np.full((20, 20), 255, np.uint8), 22)).save(tmp_path / "masks" / file.name)
    shape = np.packbits(np.hypot(*np.mgrid[-32:32, -32:32]) < 20)[None]
    np.savez(tmp_path / "shapes" / "discs.npz", packed=np.repeat(shape, 2, 0))
    (tmp_path / "shapes" / "discs.csv").write_text("row,image\n0,a.jpg\n1,kept.jpg\n")
    (tmp_path / "shapes" / "reserved_for_evaluation.txt").write_text("kept.jpg:cup\n")
    torch.save(squeezenet1_0(weights=None).state_dict(), tmp_path / "squeezenet.pth")
    places = {"data": pictures_folder, "eval": tmp_path, "run": tmp_path / "run", "out": tmp_path / "out"}
    files = {
        "weights": exported,
        "silhouettes": tmp_path / "shapes" / "discs.npz",
        "perceptual": tmp_path / "squeezenet.pth",
    }
    numbers = {"preset": "tiny", "steps": 1, "processes": 1, "holes": 2}
    told = [f"--{name}={value}" for name, value in {**places, **files, **numbers}.items()]

    assert main(["ablations", *told]) == 0

    said = capsys.readouterr().out
    rows = read_rows(tmp_path / "out")
    assert [row["row"] for row in rows] == [row_of(key).title for key in told_of]
    assert all(np.isfinite(float(row[name])) for row in rows for name in ablations.SHOWN)
    assert [row["agrees"] == "" for row in rows].count(True) == len(TABLES)
    assert (tmp_path / "out" / "ablations.md").read_text().strip() in said


@pytest.mark.parametrize(
    ("gap", "word"),
    [
        ("-0.0200 [-0.0300, -0.0100]", "yes"),
        ("+0.0200 [+0.0100, +0.0300]", "no, the opposite"),
        ("-0.0200 [-0.0500, +0.0100]", "no difference seen"),
        ("+0.0000 [+0.0000, +0.0000]", "no difference seen"),
    ],
)
def test_only_an_interval_on_one_side_of_zero_agrees_or_disagrees_with_the_paper(gap: str, word: str) -> None:
    assert verdict(gap) == word


def test_the_documents_show_the_figures_of_the_file_beside_them() -> None:
    rows = read_rows(DOCS)
    assert "\n".join(markdown(rows)) in (DOCS / "ablations.md").read_text(encoding="utf-8")
