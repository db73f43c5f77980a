"""A checker that may hold a result back: diffusers' own for Stable Diffusion, where an operator has named one.

Without a name nothing is checked. With one, every result is: a checker that cannot be loaded stops the run rather than
letting pictures through.
"""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from asuka_infer.geometry import crop, frames_around
from asuka_infer.request import Hole, RgbImage

SAFETY_VARIABLE = "ASUKA_SAFETY_CHECKER"
"""A folder or a hub id (in the hub's cache) of a StableDiffusionSafetyChecker, for example
CompVis/stable-diffusion-safety-checker; or a diffusers folder that has one in `safety_checker`."""

CONTEXT = 0.5
"""Surroundings that the checker sees of each hole, as a share of its longer side: those that methods see."""

MayBeShown = Callable[[RgbImage, Hole], bool]
"""(result, hole) -> whether it may be shown."""


class SafetyCheckerError(ValueError):
    """A checker that was asked for and cannot be had."""


def safety_check_here() -> MayBeShown | None:
    """The check that the operator asked for, loaded when it is first needed; None when none was asked for."""
    name = os.environ.get(SAFETY_VARIABLE)
    if not name:
        return None

    def may_be_shown(image: RgbImage, hole: Hole) -> bool:
        return load_safety_checker(name)(image, hole)

    return may_be_shown


@cache
def load_safety_checker(name: str) -> MayBeShown:
    """The check of a folder or hub id; nothing is downloaded, no pickle read.

    It looks at the picture as the checker was trained to (its middle square) and at the surroundings of every hole,
    wherever they are.

    Raises:
        SafetyCheckerError: when there is none of that name here.
    """
    import torch  # noqa: PLC0415 - only hosts that check need it at once
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker  # noqa: PLC0415 - same
    from transformers import CLIPImageProcessor  # noqa: PLC0415 - same

    folder = Path(name) / "safety_checker" if (Path(name) / "safety_checker").is_dir() else Path(name)
    try:
        checker: Any = StableDiffusionSafetyChecker.from_pretrained(
            str(folder) if folder.is_dir() else name, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise SafetyCheckerError(
            f"{SAFETY_VARIABLE} is {name!r}, but no safety checker with safetensors weights is there; give a folder of "
            f"one, run `hf download {name}` if it is a hub id, or unset it."
        ) from error
    side = checker.config.vision_config.image_size
    prepare = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})

    def may_be_shown(image: RgbImage, hole: Hole) -> bool:
        views = [image, *(crop(image, box) for box in frames_around(hole, context=CONTEXT, smallest=side))]
        pixels: torch.Tensor = torch.stack(
            [prepare(np.ascontiguousarray(view), return_tensors="pt")["pixel_values"][0] for view in views]
        )
        _, refused = checker.eval()(clip_input=pixels, images=torch.zeros(len(views), 1))
        return not any(refused)

    return may_be_shown
