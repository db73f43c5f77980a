"""LaMa, MAT and MI-GAN, with fakes of the documented interfaces of the packages that they optionally run on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asuka_infer import weight_sources
from asuka_infer.baselines import migan as migan_file
from asuka_infer.baselines import spandrel_model
from asuka_infer.catalog import find_method
from asuka_infer.inpaint import inpaint
from asuka_infer.request import Hole, RgbImage


class FakeDescriptor:
    """Spandrel's: (1, 3, h, w) in [0, 1] and (1, 1, h, w) in {0, 1}, 1 = to be painted; a style drawn when built."""

    def __init__(self, network: str) -> None:
        self.architecture = SimpleNamespace(id=network, name=network)
        self.style = float(np.random.rand())  # noqa: NPY002 - as MAT does

    def float(self) -> "FakeDescriptor":
        return self

    def eval(self) -> "FakeDescriptor":
        return self

    def __call__(self, image: Tensor, mask: Tensor) -> Tensor:
        assert image.shape == (1, 3, *mask.shape[2:])
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert float((image * mask).abs().max()) < 0.01, "nothing of what is missing may be handed over"
        painted = torch.full_like(image, self.style) * 0.5 + torch.rand_like(image) * 0.25
        return image * (1 - mask) + painted * mask


def fake_spandrel(network: str) -> SimpleNamespace:
    class ModelLoader:
        def __init__(self, device: torch.device) -> None:
            assert device.type == "cpu"

        def load_from_file(self, path: Path) -> FakeDescriptor:
            assert path.is_file()
            return FakeDescriptor(network)

    return SimpleNamespace(ModelLoader=ModelLoader)


class FakeSession:
    """onnxruntime's, of a graph that keeps where the mask is 255 and paints 9 elsewhere."""

    def __init__(self, path: str, providers: list[str]) -> None:
        assert Path(path).is_file()
        assert providers == ["CPUExecutionProvider"]

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, type="tensor(uint8)") for name in ("image", "mask")]

    def run(self, outputs: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert outputs is None
        image, mask = feed["image"], feed["mask"]
        assert image.dtype == mask.dtype == np.uint8
        assert (image.shape[:2], mask.shape[:2]) == ((1, 3), (1, 1))
        assert set(np.unique(mask)) <= {0, 255}
        return [np.where(mask == 255, image, 9).astype(np.uint8)]


def no_more(*, ignore_duplicates: bool) -> None:
    assert ignore_duplicates, "a second method may install them again"


@pytest.fixture
def installed() -> dict[str, Any]:
    """The packages that are there, by name; none of them is seen by anybody but the code under test."""
    return {
        "spandrel": fake_spandrel("LaMa"),
        "spandrel_extra_arches": SimpleNamespace(install=no_more),
        "onnxruntime": SimpleNamespace(
            InferenceSession=FakeSession, get_available_providers=lambda: ["CPUExecutionProvider"]
        ),
    }


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, installed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights."""
    monkeypatch.setenv("ASUKA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("ASUKA_DEVICE", "cpu")
    monkeypatch.setenv("ASUKA_NON_COMMERCIAL", "1")
    seen = SimpleNamespace(import_module=installed.__getitem__, util=SimpleNamespace(find_spec=installed.get))
    for module in (weight_sources, spandrel_model, migan_file):
        monkeypatch.setattr(module, "importlib", seen)
    return tmp_path


def put(folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / name).write_bytes(b"weights")


def scene() -> tuple[RgbImage, Hole]:
    image = np.random.default_rng(1).integers(1, 256, (70, 110, 3), dtype=np.uint8)
    hole = np.zeros((70, 110), np.bool_)
    hole[20:40, 30:60] = True
    return image, hole


@pytest.mark.parametrize(("key", "network"), [("lama", "LaMa"), ("mat", "MAT")])
def test_a_network_of_spandrel_fills_the_hole_and_repeats_itself_in_every_process(
    key: str, network: str, packages: Path, installed: dict[str, Any]
) -> None:
    installed["spandrel"] = fake_spandrel(network)
    put(packages / key, "weights.safetensors")
    image, hole = scene()
    np.random.seed(1)  # noqa: NPY002 - another process may have drawn from it
    first = find_method(key).load()
    done = inpaint(first, key, image, hole, seed=5)
    assert done.changed_outside == 0
    assert list(done.record.weights) == ["weights.safetensors"]
    if key == "mat":
        np.random.seed(2)  # noqa: NPY002 - same
        state = torch.get_rng_state()
        again = find_method(key).load()
        assert np.array_equal(inpaint(again, key, image, hole, seed=5).image, done.image)
        assert not np.array_equal(inpaint(again, key, image, hole, seed=6).image, done.image)
        assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers move"


def test_another_networks_weights_are_refused_by_name(packages: Path, installed: dict[str, Any]) -> None:
    installed["spandrel"] = fake_spandrel("ESRGAN")
    put(packages / "lama", "weights.pt")
    with pytest.raises(ValueError, match="holds ESRGAN, but LaMa is needed"):
        find_method("lama").load()


def test_migan_is_told_what_is_known_by_255_and_paints_the_rest(packages: Path) -> None:
    put(packages / "migan", "migan_pipeline_v2.onnx")
    image, hole = scene()
    done = inpaint(find_method("migan").load(), "migan", image, hole)
    assert (done.image[hole] == 9).all()
    assert np.array_equal(done.image[~hole], image[~hole])


def test_a_bare_network_in_migans_place_is_refused(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(packages / "migan", "migan_pipeline_v2.onnx")

    def bare(session: FakeSession) -> list[SimpleNamespace]:
        del session
        return [SimpleNamespace(name="x", type="tensor(float)")]

    monkeypatch.setattr(FakeSession, "get_inputs", bare)
    with pytest.raises(ValueError, match=r"takes \{'x': 'tensor\(float\)'\}; uint8 image and mask are needed"):
        find_method("migan").load()
