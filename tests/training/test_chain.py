"""The whole chain through its command line: train, pause, export, adopt, pack, measure, refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import squeezenet1_0

from asuka_infer.asuka.mini import load_mini
from training.chain import STAGES, adopt, assemble, export, train_mini
from training.cli import main
from training.loop import CHECKPOINT, LOG, SHEETS, TrainingError, read_state, weights_of
from training.masks import Silhouettes
from training.photographs import gather_photographs
from training.presets import Bench


@pytest.fixture(scope="module")
def trained(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole chain of a few steps."""
    run = tmp_path_factory.mktemp("run")
    assert train_mini(bench, run, "tiny")
    return run


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights")
    export(trained, out, "tiny", notes={"data": "drawn"})
    return out


def test_the_chain_leaves_log_checkpoint_weights_and_a_sheet_of_every_stage(trained: Path) -> None:
    for name in STAGES:
        steps = [json.loads(line)["step"] for line in (trained / name / LOG).read_text().splitlines()]
        assert steps == [2, 4, 6]
        assert read_state(trained / name).complete
        assert (trained / name / CHECKPOINT).is_file()
        assert len(list((trained / name / SHEETS).glob("*.webp"))) == 1


def test_a_complete_chain_is_not_trained_again(trained: Path, bench: Bench) -> None:
    before = (trained / "vae" / LOG).read_text()

    assert train_mini(bench, trained, "tiny")
    assert (trained / "vae" / LOG).read_text() == before


def test_the_exported_model_is_the_assembled_one_in_half_precision(trained: Path, exported: Path) -> None:
    loaded = load_mini(exported)
    whole = assemble(trained, "tiny", list(STAGES))

    for name, value in loaded.model.named_parameters():
        assert torch.equal(value, dict(whole.named_parameters())[name].half().float()), name
    assert loaded.notes["stages"]["backbone"]["step"] == 6
    assert loaded.notes["data"] == "drawn"


def test_what_is_noted_on_the_command_line_is_kept_in_the_manifest(trained: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.json"
    notes.write_text('{"trained": "on a Saturday", "seeds": [1, 2]}')
    arguments = ["export", "--preset", "tiny", "--run", str(trained), "--out", str(tmp_path / "out")]

    assert main([*arguments, "--notes", str(notes)]) == 0
    told = load_mini(tmp_path / "out").notes
    assert (told["trained"], told["seeds"], told["stages"]["mae"]["step"]) == ("on a Saturday", [1, 2], 6)


def test_later_stages_have_the_last_word_on_what_they_train_again(trained: Path) -> None:
    decoder, first = weights_of(trained / "decoder"), weights_of(trained / "vae")
    whole = dict(assemble(trained, "tiny", list(STAGES)).named_parameters())

    name = "vae.decoder.conv_in.weight"
    assert torch.equal(whole[name], decoder[name])
    assert not torch.equal(first[name], decoder[name])
    assert "vae.encoder.layers.1.weight" not in decoder


def test_a_chain_goes_on_from_exported_weights_on_another_machine(exported: Path, bench: Bench, tmp_path: Path) -> None:
    run = tmp_path / "elsewhere"
    assert adopt(exported, run) == list(STAGES)
    assert train_mini(bench, run, "tiny")

    state = json.loads((run / "decoder" / "state.json").read_text())
    (run / "decoder" / "state.json").write_text(json.dumps({**state, "step": 2, "complete": False}))
    assert train_mini(bench, run, "tiny")
    assert [json.loads(line)["step"] for line in (run / "decoder" / LOG).read_text().splitlines()] == [4, 6]
    with pytest.raises(TrainingError, match="already has weights"):
        adopt(exported, run)


def test_a_stage_without_those_before_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="train the stage 'vae' first"):
        assemble(tmp_path, "tiny", ["vae"])
    with pytest.raises(TrainingError, match="Nothing has been trained"):
        export(tmp_path, tmp_path / "out", "tiny")


@pytest.fixture(scope="module")
def materials(pictures_folder: Path, silhouettes: Silhouettes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the command line expects it: train/, object_masks/, weights/, eval/."""
    root = tmp_path_factory.mktemp("materials")
    shutil.copytree(pictures_folder, root / "train")
    for folder in ("object_masks", "weights", "eval/images", "eval/masks"):
        (root / folder).mkdir(parents=True)
    np.savez(root / "object_masks" / "shapes.npz", packed=np.repeat(silhouettes.packed, 2, axis=0))
    (root / "object_masks" / "shapes.csv").write_text("row,image\n0,a.jpg\n1,kept.jpg\n")
    (root / "object_masks" / "reserved_for_evaluation.txt").write_text("kept.jpg:cup\n")
    torch.manual_seed(0)
    state = {name: value.half() for name, value in squeezenet1_0(weights=None).state_dict().items()}
    torch.save(state, root / "weights" / "squeezenet1_0.pth")
    for file in sorted(pictures_folder.glob("*.png"))[:4]:
        shutil.copyfile(file, root / "eval" / "images" / file.name)
        hole = np.zeros((64, 64, 3), np.uint8)
        hole[20:50, 10:40] = 255

        Image.fromarray(hole).save(root / "eval" / "masks" / file.name)
    return root


def test_one_command_trains_with_the_perceptual_loss_and_another_tells_how_far_it_is(
    materials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--run", str(tmp_path), "--preset", "tiny", "--data", str(materials / "train"), "--processes", "1"]
    assert main(["vae", *common]) == 0
    assert "perceptual" in (tmp_path / "vae" / LOG).read_text()

    capsys.readouterr()
    assert main(["state", "--run", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["vae", "complete", "6"]
    assert lines[1].split()[:3] == ["mae", "not", "begun"]


def test_a_chain_with_no_time_left_says_that_it_paused(materials: Path, tmp_path: Path) -> None:
    common = ["--run", str(tmp_path), "--preset", "tiny", "--data", str(materials / "train"), "--processes", "1"]

    assert main(["mini", *common, "--pause-after", "0"]) == 3
    assert not read_state(tmp_path / "vae").complete


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vae", "--data", "nowhere/train"], "no silhouettes"),
        (["export", "--out", "x"], "Nothing has been trained"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--run", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err


def test_a_pack_trains_like_what_it_was_packed_from(
    materials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "pack"
    arguments = ["pack", "--data", str(materials / "train"), "--out", str(pack), "--processes", "1"]
    assert main([*arguments, "--limit-mib", "6"]) == 0
    assert sum(file.stat().st_size for file in pack.rglob("*") if file.is_file()) < 6 * 2**20

    before = gather_photographs(materials / "train", tmp_path / "one", side=256)
    after = gather_photographs(pack / "train", tmp_path / "two", side=256)
    assert [entry.name for entry in after.entries] == [entry.name for entry in before.entries]
    assert np.abs(after.pixels.astype(int) - before.pixels).mean() < 4
    common = ["--preset", "tiny", "--run", str(tmp_path / "run"), "--processes", "1"]
    assert main(["vae", *common, "--data", str(pack / "train")]) == 0

    capsys.readouterr()
    assert main([*arguments[:4], str(tmp_path / "small"), "--processes", "1", "--limit-mib", "2.41"]) == 2
    assert "do not fit" in capsys.readouterr().err


def test_the_table_compares_the_family_with_a_classical_method(
    materials: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["measure", "--eval", str(materials / "eval"), "--out", str(tmp_path), "--weights", str(exported)]
    command += ["--methods", "mae-mini,telea", "--size", "64", "--holes", "2"]
    assert main(command) == 0

    table = (tmp_path / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["method", "mae-mini", "telea"]
    assert (tmp_path / "sheet.webp").is_file()
    differences = (tmp_path / "differences.csv").read_text().splitlines()
    assert differences[1].startswith("mae-mini,telea,")
    assert len(list((tmp_path / "results" / "telea").glob("*.png"))) == 8

    first = capsys.readouterr().out
    assert main(command) == 0
    assert capsys.readouterr().out == first
