"""What the large pipelines are asked to fill: pictures of any usual form as tensors whose hole is blanked at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from jaxtyping import Bool, Float
from torch import Tensor

from asuka_infer.request import LARGEST_SEED

BLANK = "blank"
"""The prior picture that is blank paper."""


class SceneError(ValueError):
    """Pictures, holes or seeds that do not fit each other or the model; the message says what to change."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A batch of pictures with missing pixels.

    Attributes:
        image: RGB in [0, 1], grey (0.5) under the hole: what was there is gone before anything is resized or encoded.
        hole: True = missing.
    """

    image: Float[Tensor, "batch 3 height width"]
    hole: Bool[Tensor, "batch 1 height width"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[2], self.image.shape[3]

    def repeated(self, candidates: int) -> "Scene":
        """Every picture `candidates` times in a row: 0, 0, 1, 1."""
        return Scene(self.image.repeat_interleave(candidates, 0), self.hole.repeat_interleave(candidates, 0))


def scene_from(image: Any, mask_image: Any, *, multiple: int) -> Scene:
    """Pictures and holes as diffusers takes them: PIL, numpy (height, width, colour), tensors in [0, 1], or lists.

    Args:
        image: one picture or several of one size.
        mask_image: one hole per picture, or one for all; white = missing.
        multiple: both sides must be multiples of this; nothing is resized here, because resizing mixes hole and known.

    Raises:
        SceneError: when sizes or counts do not fit.
    """
    pixels = pictures(image)
    binary = VaeImageProcessor(do_resize=False, do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    hole = binary.preprocess(mask_image) > 0
    height, width = pixels.shape[2:]
    if hole.shape[2:] != pixels.shape[2:]:
        raise SceneError(
            f"The hole is {hole.shape[3]}x{hole.shape[2]} but the picture is {width}x{height}; resize one of them."
        )
    if height % multiple or width % multiple:
        raise SceneError(
            f"The picture is {width}x{height}, but both sides must be multiples of {multiple}; pad it first."
        )
    if len(hole) not in {1, len(pixels)}:
        raise SceneError(f"{len(hole)} holes were given for {len(pixels)} pictures; give one each, or one for all.")
    hole = hole.expand(len(pixels), -1, -1, -1)
    return Scene(torch.where(hole, 0.5, pixels), hole)


def pictures(image: Any) -> Float[Tensor, "batch 3 height width"]:
    """Pictures in any of diffusers' forms as RGB in [0, 1].

    Raises:
        SceneError: for values outside [0, 1] or another number of colours.
    """
    pixels = VaeImageProcessor(do_resize=False, do_normalize=False, do_convert_rgb=True).preprocess(image)
    if pixels.shape[1] != 3:  # noqa: PLR2004 - RGB
        raise SceneError(f"The picture has {pixels.shape[1]} channels, but RGB is needed.")
    if pixels.min() < 0 or pixels.max() > 1:
        raise SceneError(f"The picture's values span {pixels.min():.3g}..{pixels.max():.3g}, but 0..1 is needed.")
    # One memory layout whatever the form it came in, so that the same picture gives the same result bit for bit.
    return pixels.float().contiguous()


def prior_view(
    scene: Scene, prior_image: Any = None
) -> tuple[Float[Tensor, "pictures 3 h w"], Bool[Tensor, "pictures 1 h w"]]:
    """What the auto-encoder sees: the scene, or a picture in its place (its limitation section's remedy), seen whole.

    Args:
        scene: the pictures and holes to fill.
        prior_image: None for the scene itself, "blank" for blank paper, or one picture for all or one each.

    Raises:
        SceneError: for another word or another number of pictures.
    """
    if prior_image is None:
        return scene.image, scene.hole
    if isinstance(prior_image, str) and prior_image != BLANK:
        raise SceneError(f"The prior picture is {prior_image!r}; give a picture or {BLANK!r}.")
    seen = torch.ones_like(scene.image) if isinstance(prior_image, str) else pictures(prior_image)
    if len(seen) not in {1, len(scene.image)}:
        raise SceneError(f"{len(seen)} prior pictures were given for {len(scene.image)} pictures; give one each.")
    seen = seen.expand(len(scene.image), -1, -1, -1)
    return seen, torch.zeros_like(seen[:, :1], dtype=torch.bool)


def candidate_seeds(seeds: int | Sequence[int], count: int, candidates: int) -> list[int]:
    """One seed per picture and candidate: candidate k of a picture has its seed plus k, however many are asked for.

    Raises:
        SceneError: when the number of seeds is neither one nor that of the pictures, or `candidates` is below 1.
    """
    given = [seeds] * count if isinstance(seeds, int) else list(seeds)
    if len(given) != count or candidates < 1:
        raise SceneError(f"{len(given)} seeds and {candidates} candidates for {count} pictures; give one seed each.")
    return [(seed + k) % (LARGEST_SEED + 1) for seed in given for k in range(candidates)]
