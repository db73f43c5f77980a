"""Fine-tuning on one's own photographs: one command, a fair split, a table before and after, weights the app takes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import squeezenet1_0

from asuka_infer.asuka.embedded_files import FOLDER_VARIABLE
from asuka_infer.asuka.mini import MiniModel, load_mini, save_mini
from asuka_infer.catalog import find_method
from asuka_infer.request import InpaintRequest
from training import finetune as module
from training.chain import STAGES
from training.cli import main
from training.finetune import Own, split_photographs
from training.presets import MODELS


@pytest.fixture(scope="module")
def own(pictures_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs, with the perceptual weights and exported weights beside it."""
    root = tmp_path_factory.mktemp("own")
    shutil.copytree(pictures_folder, root / "photos")
    (root / "weights").mkdir()
    torch.manual_seed(0)
    torch.save(squeezenet1_0(weights=None).state_dict(), root / "weights" / "squeezenet1_0.pth")
    states = {name: {"step": 9, "seconds": 9.0, "complete": True} for name in STAGES}
    save_mini(MiniModel(MODELS["tiny"]), root / "exported", notes={"stages": states})
    return root


def command(own: Path, run: Path) -> list[str]:
    places = ["--data", str(own / "photos"), "--run", str(run / "run"), "--out", str(run / "mine")]
    small = ["--preset", "tiny", "--minutes", "0", "--processes", "1", "--holes", "1"]
    return ["finetune", *places, "--weights", str(own / "exported"), *small]


def test_one_command_goes_from_photographs_to_a_table_and_weights_that_the_app_takes(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "SIDE", 64)
    assert main(command(own, tmp_path)) == 0

    said = capsys.readouterr().out
    assert "2 of the 2 photographs held out of 12 by seed 0, 2 holes each; 10 were learnt from" in said
    table = (tmp_path / "run" / "table" / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["method", "after", "before", "telea"]
    before, after = (load_mini(folder).model.state_dict() for folder in (own / "exported", tmp_path / "mine"))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"mae", "vae"}
    assert load_mini(tmp_path / "mine").notes["fine_tuned"]["seed"] == 0

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "mine"))
    method = find_method("asuka-mini").load()
    assert dict(getattr(method, "weights")) == dict(load_mini(tmp_path / "mine").files)  # noqa: B009 - not in the protocol
    hole = np.zeros((40, 40), dtype=bool)
    hole[10:20, 10:30] = True
    assert method(InpaintRequest(np.full((40, 40, 3), 90, np.uint8), hole)).image.shape == (40, 40, 3)


def test_nobody_learns_from_what_is_measured_and_a_seed_names_the_split(own: Path, tmp_path: Path) -> None:
    photos, perceptual = own / "photos", own / "weights" / "squeezenet1_0.pth"
    splits = [split_photographs(Own(photos, perceptual, share=0.25, seed=seed), tmp_path, 64, 1) for seed in (0, 0, 1)]
    for one in splits:
        learnt, measured = set(one.training.tolist()), set(one.evaluation.tolist())
        assert len(measured) == 3
        assert not learnt & measured
        assert learnt | measured == set(range(12))
    assert splits[0].apart == splits[1].apart != splits[2].apart


def test_a_folder_that_is_not_there_and_one_without_a_perceptual_network_are_refused_in_a_sentence(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(own / "photos", tmp_path / "lonely" / "photos")
    arguments = command(own, tmp_path)
    arguments[arguments.index("--data") + 1] = str(tmp_path / "lonely" / "photos")
    assert main(arguments) == 2
    assert "squeezenet1_0-b66bff10.pth" in capsys.readouterr().err


def test_a_missing_folder_of_ones_own_weights_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    readiness = find_method("asuka-mini").readiness()
    assert not readiness.ready
    assert FOLDER_VARIABLE in readiness.how_to
