"""SqueezeNet 1.0 features: the perceptual network of the losses and of the metrics that need one.

Its weights are a file that the caller names (torchvision's `squeezenet1_0` names); nothing is downloaded.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import squeezenet1_0

from asuka_infer.metrics.looks import Look
from asuka_infer.request import RgbImage

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""What torchvision's weights expect RGB in [0, 1] to be normalised with."""

TAPS = (1, 4, 5, 8, 10)
"""Layers whose output is compared: the last before each pooling and two between (our choice, much as LPIPS does)."""

POOLED_WIDTH = 512
"""Channels of the last fire module, averaged over the image: what the kernel distance and the IDS scores see."""

NORM_EPSILON = 1e-10
"""LPIPS's guard against a feature vector of length zero."""

BATCH = 8
"""Images per pass when measuring: 512-px images then take well under a gigabyte."""


class SqueezeNet(nn.Module):
    """Frozen SqueezeNet 1.0: the features of its taps, and a perceptual distance made of them."""

    name: ClassVar[str] = "squeezenet"
    width: ClassVar[int] = POOLED_WIDTH
    smallest: ClassVar[int] = 21

    def __init__(self, weights: Path) -> None:
        """Load the weights.

        Raises:
            FeatureWeightsError: when the file is missing or is no SqueezeNet 1.0.
        """
        super().__init__()
        network = squeezenet1_0(weights=None)
        if not weights.is_file():
            raise FeatureWeightsError(
                f"There is no file {weights}; give SqueezeNet 1.0 weights with torchvision's names."
            )
        state = torch.load(weights, map_location="cpu", weights_only=True)
        try:
            network.load_state_dict({name: value.float() for name, value in state.items()})
        except RuntimeError as error:
            raise FeatureWeightsError(f"{weights} is not torchvision's squeezenet1_0: {error}") from error
        self.layers = network.features
        self.mean = nn.Buffer(torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.requires_grad_(requires_grad=False).eval()

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Each tap's features of RGB images in [0, 1]."""
        return [features for number, features in self._through(images) if number in TAPS]

    def pooled(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 512"]:
        """One vector per image: the last layer's features, averaged over the image."""
        return list(self._through(images))[-1][1].mean(dim=(2, 3))

    def look(self, images: Float[Tensor, "batch 3 height width"]) -> Look:
        """The unit features of the taps and `pooled`, from one pass."""
        taps: list[Tensor] = []
        features = images
        for number, features in self._through(images):
            if number in TAPS:
                taps.append(_unit(features))
        return Look(tuple(taps), features.mean(dim=(2, 3)))

    def distance(
        self, one: Float[Tensor, "batch 3 height width"], other: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, " batch"]:
        """LPIPS without learned weights: squared distance of unit feature vectors, mean over places and taps (0..2).

        The taps carry no learned weights, so this is no published LPIPS; say so where it is shown.
        """
        # One after the other: a picture that is not learnt from then costs no way back (a third less time in training).
        sides = [tuple(_unit(tap) for tap in self(side)) for side in (one, other)]
        return self.between(*sides)

    def between(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> Float[Tensor, " batch"]:
        """`distance` of pictures that were looked at before, from their taps."""
        differences = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(one, other, strict=True)]
        return torch.stack(differences).mean(0)

    def _through(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        features = (images - self.mean) / self.std
        for number, layer in enumerate(self.layers):
            features = layer(features)
            yield number, features


class FeatureWeightsError(ValueError):
    """Weights that are missing or belong to another network."""


@torch.inference_mode()
def perceptual_distances(
    results: Sequence[RgbImage], truths: Sequence[RgbImage], network: SqueezeNet
) -> NDArray[np.float64]:
    """`SqueezeNet.distance` of each pair, 0 = alike."""
    pairs = zip(_batches(results), _batches(truths), strict=True)
    return np.concatenate([network.distance(one, other).double().numpy() for one, other in pairs])


@torch.inference_mode()
def pooled_features(images: Sequence[RgbImage], network: SqueezeNet) -> NDArray[np.float64]:
    """(n, 512): one vector per image, for the kernel distance and the IDS scores."""
    return np.concatenate([network.pooled(batch).double().numpy() for batch in _batches(images)])


def _unit(features: Tensor) -> Tensor:
    # Not functional.normalize: its gradient at a zero vector is NaN, and ReLU features do vanish in flat areas.
    return features / (features.square().sum(1, keepdim=True) + NORM_EPSILON).sqrt()


def _batches(images: Sequence[RgbImage]) -> Iterator[Tensor]:
    """Images of one size in batches; a change of size starts another batch."""
    start = 0
    while start < len(images):
        stop = start + 1
        while stop < min(start + BATCH, len(images)) and images[stop].shape == images[start].shape:
            stop += 1
        yield torch.from_numpy(np.stack(images[start:stop])).permute(0, 3, 1, 2).float() / 255
        start = stop
