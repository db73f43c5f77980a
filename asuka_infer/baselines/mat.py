"""mat: MAT (Li et al. 2022) through spandrel_extra_arches; non-commercial, and drawn so that every process agrees."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asuka_infer.baselines.spandrel_model import SpandrelModel, load_spandrel
from asuka_infer.inpainter import Watch
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import FillSettings, WorkingSize, whole
from asuka_infer.weighted import Filled, Weighted

CELL = 512
"""MAT takes sides that are multiples of this."""

BUILD_SEED = 0
"""MAT draws its style vector from numpy's global generator while it is built, and does not store it."""


@dataclass(frozen=True)
class MatSettings(FillSettings):
    """What can be turned on `mat`."""

    largest_side: int = whole(
        CELL, lowest=CELL, highest=2048, meaning="Longest side in pixels; larger crops are scaled down."
    )


def mat(path: Path) -> Weighted[SpandrelModel, MatSettings]:
    """The method on `MAT_Places512_G_fp16.safetensors` or another file that spandrel knows as MAT.

    The style vector is drawn with a seed of its own, so that every process has the same.
    """
    before = np.random.get_state()  # noqa: NPY002 - MAT reads the old global generator
    np.random.seed(BUILD_SEED)  # noqa: NPY002 - same
    try:
        model = load_spandrel(path, "MAT", extra=True)
    finally:
        np.random.set_state(before)  # noqa: NPY002 - same
    return Weighted(_fill, model, {path.name: path}, _sizes, MatSettings())


def _sizes(settings: MatSettings) -> WorkingSize:
    return WorkingSize(settings.largest_side, CELL, CELL)


def _fill(model: SpandrelModel, request: InpaintRequest, settings: Any, watch: Watch) -> Filled:
    del settings
    # Its drop-out is on while it paints and draws from torch's global generator.
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(request.seed)
        image = model(request)
    watch.step(1, 1)
    return Filled(image)
