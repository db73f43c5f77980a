"""mae: a published Masked Auto-Encoder's own reconstruction, ASUKA's blurry prior, as a method."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from asuka_infer.asuka.checkpoints import load_mae
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.geometry import Fit
from asuka_infer.images import to_float, to_uint8
from asuka_infer.inpainter import Watch
from asuka_infer.placement import choose_placement
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import Settings, WorkingSize
from asuka_infer.weighted import Filled, Weighted

MEMORY_MB = 1500

SMALLEST_SIDE = 256
"""What it works at; crops are enlarged to it."""


@dataclass(frozen=True)
class MaeSettings(Settings):
    """`mae` has nothing to turn."""


def mae(path: Path) -> Weighted[MaskedAutoencoder, MaeSettings]:
    """The method on any weight file that `checkpoints.load_mae` reads."""
    model: Any = load_mae(path)
    model.to(device=torch.device(choose_placement(MEMORY_MB).device))
    return Weighted(_fill, model, {path.name: path}, _sizes, MaeSettings())


def _sizes(settings: MaeSettings) -> WorkingSize:
    del settings
    return WorkingSize(SMALLEST_SIDE, smallest=SMALLEST_SIDE, square=True)


@torch.inference_mode()
def _fill(model: MaskedAutoencoder, request: InpaintRequest, settings: MaeSettings, watch: Watch) -> Filled:
    del settings
    side = max(request.size)
    # The model knows squares alone: what the picture does not reach is missing like the hole.
    square = Fit(request.size, request.size, (side, side))
    image, hole = square.apply(request.image, request.hole)
    hole[request.size[0] :, :] = True
    hole[:, request.size[1] :] = True
    pixels = torch.where(torch.from_numpy(hole)[None, None], 0.5, torch.from_numpy(to_float(image))[None])
    device = model.mask_token.device
    imagined = model.reconstruct(pixels.to(device), torch.from_numpy(hole)[None, None].to(device))
    enlarged = functional.interpolate(imagined, size=(side, side), mode="bicubic", align_corners=False)
    watch.step(1, 1)
    return Filled(square.undo(to_uint8(enlarged[0].float().clamp(0, 1).cpu().numpy())))
