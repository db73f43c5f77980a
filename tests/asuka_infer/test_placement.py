"""Where models run and how: what the environment asks for, and what a machine cannot do."""

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from asuka_infer.asuka.decoder import ConditionalAutoencoderKL
from asuka_infer.placement import Placement, PlacementError, choose_placement, settle


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEVICE", "PRECISION", "COMPILE", "OFFLOAD", "TILING"):
        monkeypatch.delenv(f"ASUKA_{name}", raising=False)
    monkeypatch.setenv("ASUKA_DEVICE", "cpu")


def test_a_cpu_tiles_when_asked_and_refuses_to_offload(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not choose_placement(100).tiling
    monkeypatch.setenv("ASUKA_TILING", "1")
    assert choose_placement(100).tiling
    monkeypatch.setenv("ASUKA_OFFLOAD", "1")
    with pytest.raises(PlacementError, match=r"ASUKA_OFFLOAD is 1, but the models run on cpu.*unset it"):
        choose_placement(100)


@pytest.mark.parametrize(
    ("free_mb", "asked", "offload"), [(10_000, "0", False), (10_000, "1", True), (5_900, "0", True)]
)
def test_a_gpu_offloads_and_tiles_when_asked_or_short(
    monkeypatch: pytest.MonkeyPatch,
    free_mb: int,
    asked: str,
    offload: bool,  # noqa: FBT001 - a case, not a flag
) -> None:
    monkeypatch.setenv("ASUKA_DEVICE", "cuda")
    monkeypatch.setenv("ASUKA_OFFLOAD", asked)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def memory(_device: str) -> tuple[int, int]:
        return free_mb * 10**6, 24 * 10**9

    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    placement = choose_placement(5000)
    assert (placement.offload, placement.tiling) == (offload, offload)


def test_a_device_and_a_precision_that_are_not_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("ASUKA_DEVICE", "cuda:3")
    with pytest.raises(PlacementError, match="cuda:3, but torch finds no GPU"):
        choose_placement(100)
    monkeypatch.setenv("ASUKA_DEVICE", "cpu")
    monkeypatch.setenv("ASUKA_PRECISION", "half")
    with pytest.raises(PlacementError, match="'half'; give float32"):
        choose_placement(100)


class Pipeline:
    """The parts of a diffusers pipeline that placing it touches."""

    def __init__(self, vae: Any) -> None:
        self.unet, self.vae, self.calls = torch.nn.Conv2d(3, 3, 3), vae, list[str]()

    def set_progress_bar_config(self, **_named: Any) -> None:
        self.calls.append("quiet")

    def enable_model_cpu_offload(self, device: str) -> None:
        self.calls.append(f"offload to {device}")

    def to(self, device: str) -> "Pipeline":
        self.calls.append(f"to {device}")
        return self


def vaes() -> list[Any]:
    build: Any = AutoencoderKL
    return [build(block_out_channels=(8,), norm_num_groups=4), ConditionalAutoencoderKL(
        down_block_out_channels=(8, 8, 8, 8), layers_per_down_block=1, up_block_out_channels=(8, 8, 8, 8),
        layers_per_up_block=1, norm_num_groups=4,
    )]  # fmt: skip


def test_every_autoencoder_of_the_catalog_tiles_and_offloaded_parts_are_not_moved() -> None:
    for vae in vaes():
        pipeline = Pipeline(vae)
        settle(pipeline, Placement("cpu", torch.float32))
        assert pipeline.calls == ["quiet", "to cpu"]
        assert not vae.use_tiling
        pipeline = Pipeline(vae)
        settle(pipeline, Placement("cuda", torch.float16, offload=True, tiling=True))
        assert pipeline.calls == ["quiet", "offload to cuda"]
        assert vae.use_tiling
