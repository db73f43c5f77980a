"""CLIP's picture vectors (Radford et al., ICML 2021): features for sets, and the cosine of what fills two holes."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from asuka_infer.metrics.looks import Look
from asuka_infer.weights import WeightsError

DEFAULT_CLIP = "openai/clip-vit-large-patch14"
"""What the official evaluation uses (ViT-L/14)."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of RGB in [0, 1], in all of OpenAI's models."""


class ClipVision(nn.Module):
    """The picture half of a CLIP model, with its projection."""

    name: ClassVar[str] = "clip"
    smallest: ClassVar[int] = 1

    def __init__(self, source: Path | str = DEFAULT_CLIP) -> None:
        """Load a folder in transformers' layout, or a hub id whose files are in the cache; nothing is downloaded.

        Raises:
            WeightsError: when it is not there or is no CLIP.
        """
        super().__init__()
        from transformers import CLIPVisionModelWithProjection  # noqa: PLC0415 - costs seconds that others need not pay

        try:
            model: Any = CLIPVisionModelWithProjection.from_pretrained(str(source), local_files_only=True)
        except (OSError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise WeightsError(
                f"{source} is no CLIP model that is here ({first}); give a folder with config.json and "
                f"model.safetensors, or run `hf download {DEFAULT_CLIP}` where the hub can be reached."
            ) from error
        self.model = model
        self.side = int(model.config.image_size)
        self.width = int(model.config.projection_dim)
        self.mean = nn.Buffer(torch.tensor(MEAN).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(STD).view(1, 3, 1, 1))
        self.requires_grad_(requires_grad=False).eval()

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch width"]:
        """One vector per RGB picture in [0, 1]: shorter side to the model's, bicubic, centre."""
        scaled = resize(images, [self.side], InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
        seen = (center_crop(scaled, [self.side, self.side]) - self.mean) / self.std
        return self.model(pixel_values=seen).image_embeds

    def look(self, images: Float[Tensor, "batch 3 height width"]) -> Look:
        """The same."""
        return Look(vector=self.embed(images))

    def similarity(
        self, one: Float[Tensor, "batch 3 height width"], other: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, " batch"]:
        """Cosine of the two vectors, -1..1. The published script gives it pictures that are black outside the hole."""
        return nn.functional.cosine_similarity(self.embed(one), self.embed(other))
