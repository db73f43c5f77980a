"""The paper's recipe in small: from raw folders to a folder that `asuka-sd15` loads and runs."""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from asuka_infer.asuka.checkpoints import load_mae
from asuka_infer.asuka.mae import MaskedAutoencoder, sincos_positions
from asuka_infer.catalog import find_method
from asuka_infer.inpaint import Framing, inpaint
from tests.asuka_infer.baselines.tiny_weights import save_asymmetric, save_sd
from training.cli import main
from training.full import RECIPES, Parts, assemble_full, shared_out
from training.full_model import SdNoise
from training.loop import LOG, TrainingError, read_state, weights_of
from training.masks import read_silhouettes
from training.photographs import gather_photographs
from training.silhouettes import mask_of_runs, runs_of
from training.streaming import list_photographs

# diffusers hands tensors to numpy in a way that numpy 2 will stop accepting.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")

NUMBERS = RECIPES["paper"]


def save_facebook_mae(path: Path) -> MaskedAutoencoder:
    """A file in the form of `mae_visualize_vit_*.pth`: a cls token, positions of 14x14 tokens, nothing of ASUKA's."""
    torch.manual_seed(1)
    mae = MaskedAutoencoder(
        image_size=64, patch_size=4, width=64, depth=1, heads=1, decoder_width=32, decoder_depth=6, decoder_heads=16,
        use_cls_token=True,
    )  # fmt: skip
    state = {key: value for key, value in mae.state_dict().items() if not key.startswith(("alpha", "decoder_patch"))}
    for key, width in (("pos_embed", 64), ("decoder_pos_embed", 32)):
        state[key] = torch.cat([torch.zeros(1, 1, width), sincos_positions(width, 14)], 1)
    torch.save({"model": state}, path)
    return mae


@pytest.fixture(scope="module")
def raw(pictures_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is downloaded: Places2's tar, COCO's annotations, the backbone, the MAE, Zhu et al.'s autoencoder."""
    root = tmp_path_factory.mktemp("raw")
    save_sd(root / "sd15")
    save_asymmetric(root / "zhu")
    save_facebook_mae(root / "mae.pth")
    (root / "places2").mkdir()
    with tarfile.open(root / "places2" / "train_large_places365standard.tar", "w") as shard:
        for file in sorted(pictures_folder.glob("*.png")):
            jpeg = io.BytesIO()
            Image.open(file).resize((96, 80)).save(jpeg, "JPEG")
            member = tarfile.TarInfo(f"data_large/a/abbey/{file.stem}.jpg")
            member.size = jpeg.tell()
            jpeg.seek(0)
            shard.addfile(member, jpeg)
    annotation = {"image_id": 7, "category_id": 3, "area": 900, "iscrowd": 0}
    told = {
        "images": [{"id": 7, "file_name": "000000000007.jpg", "height": 60, "width": 80}],
        "categories": [{"id": 3, "name": "cup"}],
        "annotations": [{**annotation, "segmentation": [[20, 10, 50, 10, 50, 40, 20, 40]]}],
    }
    (root / "instances_train2017.json").write_text(json.dumps(told))
    return root


def command(raw: Path, run: Path, what: str, *more: str) -> list[str]:
    parts = ["--backbone", str(raw / "sd15"), "--mae", str(raw / "mae.pth"), "--decoder", str(raw / "zhu")]
    data = ["--data", str(raw / "places2"), "--silhouettes", str(run / "coco.npz"), "--threads", "1"]
    return ["full", what, *parts, *data, "--run", str(run), "--recipe", "rehearsal", *more]


@pytest.fixture(scope="module")
def trained(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every stage."""
    run = tmp_path_factory.mktemp("full")
    assert main(["silhouettes", "--coco", str(raw / "instances_train2017.json"), "--out", str(run / "coco.npz")]) == 0
    assert main(command(raw, run, "all")) == 0
    assert main(command(raw, run, "prompt")) == 0
    return run


def test_raw_folders_become_a_folder_that_asuka_sd15_loads_and_runs(
    raw: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(command(raw, trained, "export", "--out", str(tmp_path / "asuka-sd15"))) == 0
    monkeypatch.setenv("ASUKA_WEIGHTS", str(tmp_path))
    method = find_method("asuka-sd15")
    assert method.readiness().ready

    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    hole = np.zeros((64, 64), dtype=bool)
    hole[20:40, 16:44] = True
    small = method.load().with_settings(steps=2, largest_side=64)
    done = inpaint(small, "asuka-sd15", image, hole, seed=1, framing=Framing(None))

    assert np.array_equal(done.image[~hole], image[~hole])
    assert not np.array_equal(done.image[hole], image[hole])
    assert "prior" in done.previews
    # What it runs on is what the run has learnt, in half precision.
    learnt = weights_of(trained / "alignment")["alignment.proj.weight"]
    stored = load_file(next((tmp_path / "asuka-sd15" / "alignment").glob("*.safetensors")))
    assert torch.equal(stored["proj.weight"], learnt.half())
    assert json.loads((tmp_path / "asuka-sd15" / "training.json").read_text())["stages"]["decoder"]["step"] == 2


def test_learned_tokens_become_the_file_that_sd15_prompt_loads(
    raw: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sd15-prompt").mkdir()
    out = tmp_path / "sd15-prompt" / "tokens.safetensors"
    assert main(command(raw, trained, "export-prompt", "--out", str(out))) == 0
    (tmp_path / "sd15").symlink_to(raw / "sd15")
    monkeypatch.setenv("ASUKA_WEIGHTS", str(tmp_path))

    assert find_method("sd15-prompt").readiness().ready
    assert find_method("sd15-prompt").load() is not None
    assert tuple(load_file(out)["tokens"].shape) == (77, 32)


def test_every_stage_moves_its_own_part_and_the_encoder_is_the_backbones(raw: Path, trained: Path) -> None:
    parts = Parts(raw / "sd15", raw / "mae.pth", raw / "zhu")
    before = dict(assemble_full(parts, trained / "nothing", "rehearsal").named_parameters())
    after = dict(assemble_full(parts, trained, "rehearsal").named_parameters())

    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"mae", "alignment", "vae"}
    still = [name for name in before if name.startswith(("vae.encoder", "vae.quant_conv", "unet."))]
    assert all(torch.equal(before[name], after[name]) for name in still)
    published = AsymmetricAutoencoderKL.from_pretrained(raw / "zhu").state_dict()
    assert not torch.equal(before["vae.encoder.conv_in.weight"], published["encoder.conv_in.weight"])
    assert torch.equal(before["vae.decoder.conv_in.weight"], published["decoder.conv_in.weight"])


def test_a_run_goes_on_when_its_batches_are_shared_out_otherwise(raw: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "coco.npz").write_bytes((trained / "coco.npz").read_bytes())
    assert main(command(raw, tmp_path, "mae", "--pause-after", "0")) == 3
    assert main(command(raw, tmp_path, "mae", "--per-device", "2")) == 0

    assert read_state(tmp_path / "mae").complete
    assert [json.loads(line)["step"] for line in (tmp_path / "mae" / LOG).read_text().splitlines()] == [1, 2]


def test_an_alignment_without_its_mae_is_refused_unless_the_public_one_is_asked_for(
    raw: Path, tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "coco.npz").write_bytes((trained / "coco.npz").read_bytes())
    assert main(command(raw, tmp_path, "alignment")) == 2
    assert "'mae' is not complete" in capsys.readouterr().err
    assert main(command(raw, tmp_path, "export", "--out", str(tmp_path / "out"))) == 2


@pytest.mark.parametrize(
    ("batch", "processes", "per_device", "shared"),
    [(1024, 8, 64, (64, 2)), (40, 8, None, (5, 1)), (40, 1, 16, (10, 4)), (64, 16, 3, (2, 2))],
)
def test_a_batch_is_shared_out_whole(batch: int, processes: int, per_device: int | None, shared: Sequence[int]) -> None:
    assert shared_out(batch, processes, per_device) == tuple(shared)
    assert shared[0] * shared[1] * processes == batch


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(TrainingError, match="40 cannot be shared by 3"):
        shared_out(40, 3, None)
    with pytest.raises(TrainingError, match="at least 4"):
        shared_out(40, 8, 3, least=4)


def test_the_papers_numbers_are_the_papers() -> None:
    assert NUMBERS.mae.pace.batch == 1024
    assert NUMBERS.depth == 4
    assert NUMBERS.alignment.decay == 2000
    assert (NUMBERS.decoder.pace.steps, NUMBERS.decoder.pace.batch, NUMBERS.decoder.pace.peak) == (50_000, 40, 8e-5)
    jitter = NUMBERS.decoder.jitter
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (0.15, 0.2, 0.1, 0.03)
    assert NUMBERS.decoder.augmented == 0.5


def test_the_one_step_estimate_undoes_the_noise_it_is_told() -> None:
    """Equation 1: with the true noise for a prediction the clean latents come back."""
    noise = SdNoise(torch.linspace(0.999, 0.005, 1000), "epsilon", None)
    clean, drawn = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    for each in (noise, replace(noise, prediction="v_prediction")):
        time = torch.tensor([0.0, 612.0, 999.0])
        noisy = each.add_noise(clean, drawn, time)
        alpha = torch.linspace(0.999, 0.005, 1000)[time.long()].sqrt().view(-1, 1, 1, 1)
        assert torch.allclose(noisy, alpha * clean + (1 - alpha**2).sqrt() * drawn, atol=1e-5)
        found, rest = each.clean_and_noise(noisy, each.target(clean, drawn, time), time)
        assert torch.allclose(found, clean, atol=1e-4)
        assert torch.allclose(rest, drawn, atol=1e-4)


def test_a_public_mae_is_the_starting_point_with_its_cls_token(tmp_path: Path) -> None:
    own = save_facebook_mae(tmp_path / "mae_visualize_vit_tiny.pth")
    loaded = load_mae(tmp_path / "mae_visualize_vit_tiny.pth", heads=1)

    assert loaded.cls_token is not None
    image, hole = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., 10:30, 8:40] = True
    assert torch.allclose(loaded.prior(image, hole), own.prior(image, hole), atol=1e-5)


# --- photographs and silhouettes ------------------------------------------------------------------------------------


def test_streamed_photographs_are_those_that_would_be_kept_decoded(raw: Path, tmp_path: Path) -> None:
    found = list_photographs(raw / "places2", tmp_path)
    again = list_photographs(raw / "places2", tmp_path)
    kept = gather_photographs(raw / "places2", tmp_path, side=64)

    assert again == found
    assert [entry.name for entry, _ in found] == [entry.name for entry in kept.entries]
    assert found[0][0].name == "data_large/a/abbey/00.jpg"
    with Image.open(io.BytesIO(found[0][1].read())) as picture:
        assert picture.size == (96, 80)


def test_a_coco_polygon_is_packed_where_it_lies(trained: Path) -> None:
    shapes = read_silhouettes([trained / "coco.npz"])
    assert len(shapes) == 1
    # A square of 30 px in a picture 80 px wide, letterboxed into 256: about 96 px a side from (32, 64).
    rows, columns = np.flatnonzero(shapes[0].any(1)), np.flatnonzero(shapes[0].any(0))
    assert [rows[0], columns[0]] == [32, 64]
    assert shapes[0].sum() == pytest.approx(96**2, rel=0.03)
    assert (trained / "coco.csv").read_text().splitlines()[1] == "0,000000000007.jpg,cup"


def compressed(counts: Sequence[int]) -> str:
    """COCO's rleToString, from its published definition."""
    text = ""
    for index, count in enumerate(counts):
        value, more = count - (counts[index - 2] if index > 2 else 0), True
        while more:
            code, value = value & 0x1F, value >> 5
            more = value != -1 if code & 0x10 else value != 0
            text += chr((code | 0x20 if more else code) + 48)
    return text


def test_both_of_cocos_run_lengths_are_read() -> None:
    mask = np.random.default_rng(0).random((40, 30)) < 0.4
    mask[5:30, 4:20] = True
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [not flat[-1]]])))
    counts = np.diff(np.concatenate([[0], edges])).tolist()

    assert np.array_equal(mask_of_runs(counts, 40, 30), mask)
    assert runs_of(compressed(counts)) == counts


def test_png_masks_are_packed_and_a_seed_chooses_among_too_many(tmp_path: Path) -> None:
    for number in range(6):
        mask = np.zeros((40, 60), dtype=np.uint8)
        mask[5:20, 3 : 10 + 5 * number] = 255
        (tmp_path / "masks" / "dog").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / "dog" / f"{number}.png")
    for out in ("one", "two"):
        arguments = ["silhouettes", "--masks", str(tmp_path / "masks"), "--out", str(tmp_path / f"{out}.npz")]
        assert main([*arguments, "--most", "4"]) == 0

    one, two = (read_silhouettes([tmp_path / f"{out}.npz"]) for out in ("one", "two"))
    assert len(one) == 4
    assert np.array_equal(one.packed, two.packed)
    assert ",dog" in (tmp_path / "one.csv").read_text()
    assert main(["silhouettes", "--masks", str(tmp_path / "nothing"), "--out", str(tmp_path / "x.npz")]) == 2
