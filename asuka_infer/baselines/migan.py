"""migan: MI-GAN (Sargsyan et al. 2023) as the ONNX pipeline its authors publish, fast on a CPU."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asuka_infer.inpainter import Watch
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import FillSettings, WorkingSize, whole
from asuka_infer.weighted import Filled, Weighted

KNOWN, MISSING = 255, 0
"""Levels of the pipeline's mask: the other way round than ours."""

LARGEST_SIDE = 2048
"""It crops around the hole and works at 512 px inside by itself; above this its own resizing dominates (our choice)."""


@dataclass(frozen=True)
class MiganSettings(FillSettings):
    """What can be turned on `migan`."""

    largest_side: int = whole(
        LARGEST_SIDE, lowest=32, highest=4096, meaning="Longest side in pixels; larger crops are scaled down."
    )


class PipelineFormError(ValueError):
    """An ONNX file that is not MI-GAN's whole pipeline."""


def migan(path: Path) -> Weighted[Any, MiganSettings]:
    """The method on `migan_pipeline_v2.onnx`.

    Raises:
        PipelineFormError: when the file takes other inputs: the bare network without its cropping and blending.
    """
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=runtime.get_available_providers())
    forms = {each.name: each.type for each in session.get_inputs()}
    if forms != {"image": "tensor(uint8)", "mask": "tensor(uint8)"}:
        raise PipelineFormError(f"{path} takes {forms}; uint8 image and mask are needed: migan_pipeline_v2.onnx.")
    return Weighted(_fill, session, {path.name: path}, _sizes, MiganSettings())


def _sizes(settings: MiganSettings) -> WorkingSize:
    return WorkingSize(settings.largest_side)


def _fill(session: Any, request: InpaintRequest, settings: MiganSettings, watch: Watch) -> Filled:
    del settings
    image = np.ascontiguousarray(request.image.transpose(2, 0, 1))[None]
    mask = np.where(request.hole, MISSING, KNOWN).astype(np.uint8)[None, None]
    painted = session.run(None, {"image": image, "mask": mask})[0]
    watch.step(1, 1)
    return Filled(np.ascontiguousarray(np.asarray(painted, np.uint8)[0].transpose(1, 2, 0)))
