"""The frame around methods with weights: sizes, hashes, previews, placement."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from asuka_infer.placement import Placement, PlacementError, choose_placement
from asuka_infer.request import InpaintRequest, RgbImage
from asuka_infer.settings import Settings, WorkingSize
from asuka_infer.weighted import Filled, Weighted, file_sha256


@dataclass(frozen=True)
class Nothing(Settings):
    """No knobs."""


class Listener:
    def __init__(self) -> None:
        self.pictures: list[RgbImage] = []

    def step(self, done: int, total: int) -> None:
        del done, total

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        self.pictures.append(picture())


def painter(sizes: WorkingSize, seen: list[InpaintRequest]) -> Weighted[int, Nothing]:
    """Paints everything the model's own number, and shows a preview of an eighth of the size."""

    def fill(model: int, request: InpaintRequest, settings: Nothing, watch: Listener) -> Filled:
        del settings
        seen.append(request)
        height, width = request.size
        watch.preview(lambda: np.full((height // 8, width // 8, 3), model, np.uint8))
        return Filled(np.full((height, width, 3), model, np.uint8))

    return Weighted(fill, 50, {}, lambda _: sizes, Nothing())  # pyright: ignore[reportArgumentType] - a narrower watch


@pytest.mark.parametrize("size", [(1, 1000), (37, 80), (64, 64), (700, 300), (2, 2)])
def test_the_model_sees_multiples_within_its_limits_and_the_picture_keeps_its_size(size: tuple[int, int]) -> None:
    seen: list[InpaintRequest] = []
    watch = Listener()
    image = np.full((*size, 3), 200, np.uint8)
    hole = np.zeros(size, np.bool_)
    hole[0, 0] = True
    result = painter(WorkingSize(256, 16, 64), seen)(InpaintRequest(image, hole), watch).image
    height, width = seen[0].size
    assert height % 16 == width % 16 == 0
    assert max(height, width) <= 256
    assert result.shape == image.shape
    assert np.array_equal(result[~hole], image[~hole])
    assert abs(int(result[0, 0, 0]) - 50) <= 1
    assert [shown.shape for shown in watch.pictures] == [image.shape]


def test_the_hub_caches_names_are_hashes_and_other_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    blob = tmp_path / "blobs" / digest
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert file_sha256(link) == digest
    plain = tmp_path / "plain.pt"
    for content in (b"first", b"second one"):
        plain.write_bytes(content)
        assert file_sha256(plain) == hashlib.sha256(content).hexdigest()


def test_precision_and_device_can_be_said_and_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASUKA_DEVICE", "cpu")
    monkeypatch.setenv("ASUKA_PRECISION", "float32")
    assert choose_placement(10**9) == Placement("cpu", torch.float32, offload=False)
    monkeypatch.setenv("ASUKA_PRECISION", "double")
    with pytest.raises(PlacementError, match="'double'; give float32, float16, bfloat16"):
        choose_placement(1)
    monkeypatch.delenv("ASUKA_PRECISION")
    monkeypatch.setenv("ASUKA_DEVICE", "cuda:7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PlacementError, match="torch finds no GPU here"):
        choose_placement(1)


def free_and_total(device: str) -> tuple[int, int]:
    assert device == "cuda"
    return 6_000_000_000, 8_000_000_000


def test_a_gpu_without_room_has_the_parts_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASUKA_DEVICE", "cuda")
    monkeypatch.delenv("ASUKA_PRECISION", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", free_and_total)
    assert choose_placement(4000) == Placement("cuda", torch.float16, offload=False)
    assert choose_placement(5500) == Placement("cuda", torch.float16, offload=True, tiling=True)
    assert choose_placement(4000, half=torch.bfloat16).dtype == torch.bfloat16
