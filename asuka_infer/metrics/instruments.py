"""What results are measured with: pixel metrics and feature networks, found by file name, always told by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from asuka_infer.metrics.clip import DEFAULT_CLIP, ClipVision
from asuka_infer.metrics.features import SqueezeNet
from asuka_infer.metrics.inception import TensorflowInception, TorchvisionInception
from asuka_infer.metrics.looks import look_at
from asuka_infer.metrics.lpips import LpipsAlex
from asuka_infer.request import RgbImage
from asuka_infer.weight_sources import WeightSource, local_root, locate
from asuka_infer.weights import sha256_of

VERSION = 2
"""Raised whenever a number changes its meaning, so that no earlier one is taken from the store."""

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
        kind: "pixels", "distance" and "similarity" (of what fills two holes, all else black) give numbers per picture,
            "features" a vector.
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


def embed(instrument: Instrument, pictures: Sequence[RgbImage], device: str) -> list[Vector]:
    """One vector per picture."""
    return [seen.numbers() for seen in look_at(load_network(instrument, device), pictures, device)]


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
    # Channels last in memory: a pass of SqueezeNet takes 26 ms instead of 44 on one core (256 px).
    return _NETWORKS[network](*map(Path, files)).to(device=device, memory_format=torch.channels_last)
