"""Small networks in the manner of older papers that fill a hole in one pass: what they share, from weights to fills.

The networks are one file each: context_encoder_mini.py, lama_mini.py, contextual_attention_mini.py, dfnet_mini.py.
They are trained by `training.rivals` on the same photographs and holes as the embedded family, and like it they begin
at the smoothest fill (`first_fill`) instead of a mean colour: a training of minutes then improves on something whole.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor, nn

from asuka_infer.asuka.first_fill import first_fill
from asuka_infer.images import to_float, to_uint8
from asuka_infer.inpainter import Watch
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import Settings, WorkingSize
from asuka_infer.weighted import Filled, Weighted
from asuka_infer.weights import WeightsError, load_completely, read_json, read_state, sha256_of

WEIGHTS_FOLDER = Path(__file__).parent / "mini_weights"
"""Where the committed weights lie, one file per method, with their model card."""

MANIFEST = "weights.json"
"""The file beside them: sha256 by file name."""


class OnePass(nn.Module, ABC):
    """A network that fills a hole in one pass.

    Attributes:
        side: of the pictures it works at, in px; crops are brought to it.
        multiple: both sides of a picture must be multiples of this, in px.
        cell: side of the coarsest square that is written out at once, in px: where a grid would show.
    """

    side: int = 256
    multiple: int
    cell: int

    @abstractmethod
    def forward(
        self, filled: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch 3 _ _"], ...]:
        """Pictures in about [0, 1], those of earlier stages first; the last one is the answer, at full size.

        Args:
            filled: RGB in [0, 1], the hole filled smoothly; what was under it is gone.
            hole: True = missing.
        """


@dataclass(frozen=True)
class OnePassSettings(Settings):
    """These methods have nothing to turn."""


N = TypeVar("N", bound=OnePass)


def load_one_pass(build: Callable[[], N], key: str, folder: Path = WEIGHTS_FOLDER) -> Weighted[N, OnePassSettings]:
    """The method of that key on its committed weights.

    Raises:
        WeightsError: when the file is missing, damaged or made for other sizes.
    """
    path = weights_file(key, folder)
    network = build()
    _refuse_another_file(path)
    load_completely(network, read_state(path), source=str(path))
    # Channels last: measured 10-15 % faster convolutions on CPUs (as for the embedded family).
    network.to(memory_format=torch.channels_last).eval().requires_grad_(requires_grad=False)
    return Weighted(_fill, network, {path.name: path}, lambda _: _sizes(network), OnePassSettings())


def save_one_pass(network: OnePass, key: str, folder: Path = WEIGHTS_FOLDER) -> str:
    """Write the weights in half precision as `folder/<key>.safetensors`; returns the SHA-256, noted in the manifest.

    Raises:
        WeightsError: when a weight does not fit half precision.
    """
    half = {name: value.detach().cpu().half().contiguous() for name, value in network.state_dict().items()}
    odd = [name for name, value in half.items() if not torch.isfinite(value).all()]
    if odd:
        raise WeightsError(f"{', '.join(odd)} of {key} do not fit half precision; train with a smaller step.")
    folder.mkdir(parents=True, exist_ok=True)
    path = weights_file(key, folder)
    save_file(half, path, metadata={"format": "pt"})
    noted = {**_noted(folder), path.name: sha256_of(path)}
    (folder / MANIFEST).write_text(json.dumps(dict(sorted(noted.items())), indent=1) + "\n", encoding="utf-8")
    return noted[path.name]


def weights_file(key: str, folder: Path = WEIGHTS_FOLDER) -> Path:
    """Where the weights of that method lie."""
    return folder / f"{key}.safetensors"


def paint(
    network: OnePass, image: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch 3 height width"]:
    """The network's answer in [0, 1]; what lies under the hole is never read."""
    return network(first_fill(image, hole), hole)[-1].float().clamp(0, 1)


def _noted(folder: Path) -> dict[str, str]:
    return read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}


def _refuse_another_file(path: Path) -> None:
    """A missing file is named by who reads it; a file that nobody noted was not written by `save_one_pass`."""
    if path.is_file() and _noted(path.parent).get(path.name) != sha256_of(path):
        raise WeightsError(f"{path} is not the file that {MANIFEST} beside it names; fetch the folder again.")


def _sizes(network: OnePass) -> WorkingSize:
    return WorkingSize(largest=network.side, multiple=network.multiple, smallest=network.side)


def _fill(network: OnePass, request: InpaintRequest, settings: Any, watch: Watch) -> Filled:
    del settings
    pixels = torch.from_numpy(to_float(request.image))[None]
    hole = torch.from_numpy(request.hole.copy())[None, None]
    with torch.inference_mode():
        painted = paint(network, pixels, hole)
    watch.step(1, 1)
    return Filled(to_uint8(painted[0].numpy()))
