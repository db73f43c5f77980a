"""lama: LaMa (Suvorov et al. 2022) through spandrel; one pass, no noise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asuka_infer.baselines.spandrel_model import SpandrelModel, load_spandrel
from asuka_infer.inpainter import Watch
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import FillSettings, WorkingSize, whole
from asuka_infer.weighted import Filled, Weighted

LARGEST_SIDE = 1024
"""It was trained at 256 px and generalises to about four times that before holes blur (our choice of default)."""

MULTIPLE, SMALLEST_SIDE = 8, 256


@dataclass(frozen=True)
class LamaSettings(FillSettings):
    """What can be turned on `lama`."""

    largest_side: int = whole(
        LARGEST_SIDE, lowest=32, highest=4096, meaning="Longest side in pixels; larger crops are scaled down."
    )


def lama(path: Path) -> Weighted[SpandrelModel, LamaSettings]:
    """The method on `big-lama.pt` or any other file that spandrel knows as LaMa."""
    return Weighted(_fill, load_spandrel(path, "LaMa"), {path.name: path}, _sizes, LamaSettings())


def _sizes(settings: LamaSettings) -> WorkingSize:
    return WorkingSize(settings.largest_side, MULTIPLE, min(SMALLEST_SIDE, settings.largest_side))


def _fill(model: SpandrelModel, request: InpaintRequest, settings: Any, watch: Watch) -> Filled:
    del settings
    image = model(request)
    watch.step(1, 1)
    return Filled(image)
