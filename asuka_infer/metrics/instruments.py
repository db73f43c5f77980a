"""What results are measured with: pixel metrics and feature networks, found by file name, always told by name.

A network sees one picture at a time on a CPU and passes of one fixed size on a GPU, so that a number never depends on
which pictures happened to be measured together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asuka_infer.compositing import changed_outside, exact
from asuka_infer.images import to_float
from asuka_infer.metrics.clip import DEFAULT_CLIP, ClipVision
from asuka_infer.metrics.features import SqueezeNet
from asuka_infer.metrics.inception import TensorflowInception, TorchvisionInception
from asuka_infer.metrics.lpips import LpipsAlex
from asuka_infer.metrics.pixels import pixel_scores
from asuka_infer.request import Hole, RgbImage
from asuka_infer.weight_sources import WeightSource, local_root, locate
from asuka_infer.weights import sha256_of

VERSION = 1
"""Raised whenever a number changes its meaning, so that no earlier one is taken from the store."""

CPU_PASS = 1
"""Pictures per pass on a CPU: its cores are busy with one, and no sum depends on another picture."""

GPU_PASS = 32
"""Pictures per pass on a GPU, filled up by repeating the last (our choice; memory stays below 4 GB at 512 px)."""

OUTSIDE = "changed-outside"
"""Pixels that a method changed outside the hole: 0 for one that keeps its promise."""

Family = Literal["squeezenet", "inception", "clip"]
Kind = Literal["pixels", "distance", "similarity", "features"]
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Instrument:
    """One thing that measures.

    Attributes:
        name: as tables tell it.
        kind: "pixels", "distance" and "similarity" give numbers per picture, "features" a vector.
        network: of `_NETWORKS`, or empty.
        files: weights.
        digest: of their bytes; part of the identity, so that other weights are another instrument.
    """

    name: str
    kind: Kind
    network: str = ""
    files: tuple[str, ...] = ()
    digest: str = ""

    @property
    def identity(self) -> str:
        """What a stored number belongs to."""
        return f"{VERSION}:{self.kind}:{self.name}:{self.digest}"


@dataclass(frozen=True, eq=False)
class Views:
    """One case as instruments see it.

    Attributes:
        filled: the result in the hole, the truth elsewhere.
        result: as the method left it.
        truth: the photograph.
        hole: True = missing.
    """

    filled: RgbImage
    result: RgbImage
    truth: RgbImage
    hole: Hole


class InstrumentError(ValueError):
    """A network that was asked for and whose weights are not here; the message says where to get them."""


PIXELS = Instrument("pixels", "pixels")

WHERE: Mapping[str, tuple[str, str]] = {
    "squeezenet": (
        "squeezenet1_0*.pth",
        "https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth",
    ),
    "inception-tf": (
        "pt_inception-2015-12-05*.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    "inception-torchvision": (
        "inception_v3_google-*.pth",
        "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
    ),
    "alexnet": ("alexnet-owt-*.pth", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
    "lpips heads": (
        "lpips_v0.1_lin_alex.pth",
        "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/alex.pth, renamed",
    ),
}
"""File name and address of every published network; each is looked for in the folders of `weight_folders`."""

CLIP_SOURCE = WeightSource(
    name="clip", needed=("config.json", "model.safetensors"), holds="a CLIP model", repo=DEFAULT_CLIP
)


def weight_folders(given: Path | None = None) -> tuple[Path, ...]:
    """Where weights are looked for: the given folder, ASUKA_WEIGHTS/metrics, torch's own cache."""
    first = (given,) if given else ()
    return (*first, local_root() / "metrics", Path(torch.hub.get_dir()) / "checkpoints")


def find_instruments(
    families: Sequence[Family], weights: Path | None = None
) -> tuple[tuple[Instrument, ...], list[str]]:
    """The instruments for these families of features, and a sentence for everything that is left out.

    Raises:
        InstrumentError: when a family was asked for of which no network is here.
    """
    notes: list[str] = []
    found: list[Instrument] = [PIXELS]
    alex, heads = _file("alexnet", weights), _file("lpips heads", weights)
    if alex and heads:
        found.append(_instrument("lpips", "distance", "lpips-alex", alex, heads))
    else:
        missing = [name for name, file in (("alexnet", alex), ("lpips heads", heads)) if file is None]
        notes.append(f"LPIPS is not told: {_get(missing)}")
    for family in families:
        chosen, lacking = FAMILIES[family](weights)
        if not chosen:
            raise InstrumentError(f"There are no weights for --features {family}: {_get(lacking)}")
        notes += [f"{name} is not told: {_get([name])}" for name in lacking]
        found += chosen
    return tuple(found), notes


def network_files(name: str, weights: Path | None = None) -> Path:
    """The file of one published network.

    Raises:
        InstrumentError: when it is not here.
    """
    file = _file(name, weights)
    if file is None:
        raise InstrumentError(f"There are no weights of {name}: {_get([name])}")
    return file


def load_network(instrument: Instrument, device: str) -> Any:
    """An instrument's network on a device, loaded once per process."""
    return _loaded(instrument.network, instrument.files, device)


def score(instrument: Instrument, views: Sequence[Views], device: str) -> list[dict[str, float]]:
    """The instrument's numbers for every case, by metric name."""
    if instrument.kind == "pixels":
        return [
            pixel_scores(view.result, view.truth, view.hole)
            | {OUTSIDE: float(changed_outside(view.truth, view.result, view.hole))}
            for view in views
        ]
    network = load_network(instrument, device)
    if instrument.kind == "similarity":
        filled = _embedded(network, [_hole_alone(view.filled, view.hole) for view in views], device)
        truths = _embedded(network, [_hole_alone(view.truth, view.hole) for view in views], device)
        lengths = np.linalg.norm(filled, axis=1) * np.linalg.norm(truths, axis=1)
        return [{instrument.name: float(value)} for value in (filled * truths).sum(1) / lengths]
    pairs = ([view.filled for view in views], [view.truth for view in views])
    values = _in_passes(network.distance, device, *pairs)
    return [{instrument.name: float(value)} for value in values]


def embed(instrument: Instrument, pictures: Sequence[RgbImage], device: str) -> list[Vector]:
    """One vector per picture."""
    return list(_embedded(load_network(instrument, device), pictures, device))


def view_of(result: RgbImage, truth: RgbImage, hole: Hole) -> Views:
    """A case with the known pixels put back.

    Raises:
        CompositingError: when the sizes do not agree.
    """
    return Views(exact(truth, result, hole), result, truth, hole)


def _squeezenet(weights: Path | None) -> tuple[list[Instrument], list[str]]:
    file = _file("squeezenet", weights)
    if file is None:
        return [], ["squeezenet"]
    one = _instrument("squeezenet", "features", "squeezenet", file)
    return [_instrument("perceptual-squeezenet", "distance", "squeezenet", file), one], []


def _inception(weights: Path | None) -> tuple[list[Instrument], list[str]]:
    files = {name: _file(name, weights) for name in ("inception-tf", "inception-torchvision")}
    found = [_instrument(name, "features", name, file) for name, file in files.items() if file]
    return found, [name for name, file in files.items() if file is None]


def _clip(weights: Path | None) -> tuple[list[Instrument], list[str]]:
    local = [folder / "clip" for folder in weight_folders(weights)]
    folder = next((each for each in local if (each / "config.json").is_file()), None) or locate(CLIP_SOURCE)
    if folder is None:
        return [], ["clip"]
    digest = "".join(sha256_of(file)[:8] for file in sorted(folder.glob("*.safetensors")))
    similar = Instrument("clip-similarity-hole", "similarity", "clip", (str(folder),), digest)
    return [similar, Instrument("clip", "features", "clip", (str(folder),), digest)], []


FAMILIES: Mapping[Family, Callable[[Path | None], tuple[list[Instrument], list[str]]]] = {
    "squeezenet": _squeezenet,
    "inception": _inception,
    "clip": _clip,
}
"""What `--features` takes, and how each is found."""

_NETWORKS: Mapping[str, Callable[..., Any]] = {
    "squeezenet": SqueezeNet,
    "inception-tf": TensorflowInception,
    "inception-torchvision": TorchvisionInception,
    "lpips-alex": LpipsAlex,
    "clip": ClipVision,
}


def _instrument(name: str, kind: Kind, network: str, *files: Path) -> Instrument:
    digest = "".join(sha256_of(file)[:12] for file in files)
    return Instrument(name, kind, network, tuple(map(str, files)), digest)


def _file(name: str, weights: Path | None) -> Path | None:
    pattern, _ = WHERE[name]
    return next((file for folder in weight_folders(weights) for file in sorted(folder.glob(pattern))), None)


def _get(names: Sequence[str]) -> str:
    clip = f"a folder named clip with {' and '.join(CLIP_SOURCE.needed)} of {DEFAULT_CLIP}"
    wanted = [clip if name == "clip" else f"{WHERE[name][0]} from {WHERE[name][1]}" for name in names]
    return f"put {' and '.join(wanted)} into {local_root() / 'metrics'}, or name its folder with --weights."


@cache
def _loaded(network: str, files: tuple[str, ...], device: str) -> Any:
    return _NETWORKS[network](*map(Path, files)).to(device)


def _hole_alone(picture: RgbImage, hole: Hole) -> RgbImage:
    return np.where(hole[..., None], picture, np.uint8(0))


def _embedded(network: Any, pictures: Sequence[RgbImage], device: str) -> Vector:
    return np.stack(_in_passes(network.embed, device, pictures))


@torch.inference_mode()
def _in_passes(number: Callable[..., Tensor], device: str, *sides: Sequence[RgbImage]) -> list[Any]:
    """A network's answer for each picture (or pair), in passes of a size that never varies."""
    most = CPU_PASS if device == "cpu" else GPU_PASS
    told: list[Any] = []
    start = 0
    while start < len(sides[0]):
        shape = sides[0][start].shape
        stop = start + 1
        while stop < min(start + most, len(sides[0])) and sides[0][stop].shape == shape:
            stop += 1
        batches = [_batch(side[start:stop], most).to(device) for side in sides]
        told += list(number(*batches)[: stop - start].float().cpu().numpy())
        start = stop
    return told


def _batch(pictures: Sequence[RgbImage], size: int) -> Tensor:
    planes = [torch.from_numpy(to_float(picture)) for picture in pictures]
    return torch.stack(planes + planes[-1:] * (size - len(planes)))
