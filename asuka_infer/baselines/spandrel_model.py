"""Inpainting networks of spandrel, an optional package, behind one call: a request in, a picture out."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asuka_infer.images import to_float, to_uint8
from asuka_infer.placement import choose_placement
from asuka_infer.request import InpaintRequest, RgbImage

MEMORY_MB = 2500
"""Of LaMa at 1024 px, the larger of the two."""


class OtherNetworkError(ValueError):
    """A weight file that holds another network than the method's."""


@dataclass(frozen=True, eq=False)
class SpandrelModel:
    """A loaded network.

    Attributes:
        descriptor: spandrel's: takes (1, 3, h, w) in [0, 1] and (1, 1, h, w) in {0, 1}, 1 = missing; pads by itself.
        device: where it runs.
    """

    descriptor: Any
    device: torch.device

    def __call__(self, request: InpaintRequest) -> RgbImage:
        """Fill the hole of a request."""
        pixels = torch.from_numpy(to_float(request.image))[None].to(self.device)
        hole = torch.from_numpy(request.hole.copy())[None, None].float().to(self.device)
        with torch.inference_mode():
            painted = self.descriptor(pixels, hole)
        return to_uint8(painted[0].float().clamp(0, 1).cpu().numpy())


def load_spandrel(path: Path, network: str, *, extra: bool = False) -> SpandrelModel:
    """The network of a file, in single precision: LaMa's Fourier units know no other.

    Args:
        path: safetensors, a TorchScript archive whose tensors are read, or a pickle that spandrel restricts to tensors.
        network: spandrel's name for it.
        extra: whether it is one of `spandrel_extra_arches`, whose licences do not allow commercial use.

    Raises:
        OtherNetworkError: when the file holds another one.
    """
    spandrel: Any = importlib.import_module("spandrel")
    if extra:
        added: Any = importlib.import_module("spandrel_extra_arches")
        added.install(ignore_duplicates=True)
    device = torch.device(choose_placement(MEMORY_MB).device)
    descriptor = spandrel.ModelLoader(device).load_from_file(path)
    if descriptor.architecture.id != network:
        raise OtherNetworkError(f"{path} holds {descriptor.architecture.name}, but {network} is needed.")
    descriptor.float().eval()
    return SpandrelModel(descriptor, device)
