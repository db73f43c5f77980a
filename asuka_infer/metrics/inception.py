"""Inception v3 in the two conventions that FID is published in, which give different numbers and are named apart.

* `inception-tf`: the network of Heusel et al. (TensorFlow, 2015-12-05) as pytorch-fid carries it, bilinear to 299x299
  whatever the shape, RGB to [-1, 1]. What "FID" means unless somebody says otherwise.
* `inception-torchvision`: torchvision's ImageNet network after its own transform (shorter side to 342, centre 299x299,
  ImageNet normalisation), as the official ASUKA evaluation does.
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import Inception_V3_Weights, inception_v3
from torchvision.models.inception import InceptionA, InceptionC, InceptionE

from asuka_infer.metrics.looks import Look
from asuka_infer.weights import load_completely, read_state

SIDE = 299
"""Pixels that the network sees on each side."""

WIDTH = 2048
"""Channels of the last pooling."""

TF_CLASSES = 1008
"""Of the TensorFlow network; its last layer is not used here but is in the file."""

_UNUSED = ("fc.", "AuxLogits.")
"""Layers behind the features, which the files carry."""


class TorchvisionInception(nn.Module):
    """torchvision's `inception_v3` up to its last pooling, in the official scripts' convention."""

    name: ClassVar[str] = "inception-torchvision"
    smallest: ClassVar[int] = 1
    width: ClassVar[int] = WIDTH

    def __init__(self, weights: Path) -> None:
        """Load torchvision's `inception_v3_google-0cc3c7bd.pth`.

        Raises:
            WeightsError: when the file is missing or another network's.
        """
        super().__init__()
        # Its weights expect what `transform_input` makes of ImageNet-normalised pictures.
        self.network = inception_v3(weights=None, aux_logits=False, transform_input=True, init_weights=False)
        _load(self.network, weights)
        self.transform = Inception_V3_Weights.IMAGENET1K_V1.transforms()
        self.requires_grad_(requires_grad=False).eval()

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 2048"]:
        """One vector per RGB picture in [0, 1]."""
        return self.network(self.transform(images))

    def look(self, images: Float[Tensor, "batch 3 height width"]) -> Look:
        """The same."""
        return Look(vector=self.embed(images))


class TensorflowInception(nn.Module):
    """The network that FID was defined with, under pytorch-fid's names."""

    name: ClassVar[str] = "inception-tf"
    smallest: ClassVar[int] = 1
    width: ClassVar[int] = WIDTH

    def __init__(self, weights: Path) -> None:
        """Load pytorch-fid's `pt_inception-2015-12-05-6726825d.pth`.

        Raises:
            WeightsError: when the file is missing or another network's.
        """
        super().__init__()
        self.network = inception_v3(weights=None, num_classes=TF_CLASSES, aux_logits=False, init_weights=False)
        self.network.transform_input = False
        _pool_as_tensorflow(self.network)
        _load(self.network, weights)
        self.requires_grad_(requires_grad=False).eval()

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 2048"]:
        """One vector per RGB picture in [0, 1]."""
        squeezed = functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        return self.network(2 * squeezed - 1)

    def look(self, images: Float[Tensor, "batch 3 height width"]) -> Look:
        """The same."""
        return Look(vector=self.embed(images))


class _TrueAverage(nn.Module):
    """torchvision's block with a 3x3 average that counts no padding, as TensorFlow's."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, features: Tensor) -> Tensor:
        block = self.block
        *branches, _ = block._forward(features)  # noqa: SLF001 - torchvision's own seam between branches and their sum
        pooled = functional.avg_pool2d(features, kernel_size=3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([*branches, block.branch_pool(pooled)], 1)


class _MaximumPool(nn.Module):
    """The last block of the 2015 network pools the maximum: a mistake of its authors that FID has kept."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, features: Tensor) -> Tensor:
        block = self.block
        *branches, _ = block._forward(features)  # noqa: SLF001 - as above
        pooled = functional.max_pool2d(features, kernel_size=3, stride=1, padding=1)
        return torch.cat([*branches, block.branch_pool(pooled)], 1)


_AVERAGED = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b")
_MAXIMUM = "Mixed_7c"
_BLOCKS = (InceptionA, InceptionC, InceptionE)


def _pool_as_tensorflow(network: Any) -> None:
    for name in (*_AVERAGED, _MAXIMUM):
        block = getattr(network, name)
        if not isinstance(block, _BLOCKS):
            raise TypeError(f"torchvision's {name} is a {type(block).__name__}; this version is not known here.")
        setattr(network, name, _MaximumPool(block) if name == _MAXIMUM else _TrueAverage(block))


def _load(network: Any, weights: Path) -> None:
    network.fc = nn.Identity()
    state = {key: value for key, value in read_state(weights).items() if not key.startswith(_UNUSED)}
    wrapped = (*_AVERAGED, _MAXIMUM)
    if isinstance(getattr(network, _MAXIMUM), _MaximumPool):
        state = {_inside(key, wrapped): value for key, value in state.items()}
    # Files made before 2018 do not count batches, which nothing here reads.
    counts = [key for key in network.state_dict() if key.endswith("num_batches_tracked")]
    load_completely(network, state, source=weights.name, may_lack=counts)


def _inside(key: str, wrapped: tuple[str, ...]) -> str:
    first, _, rest = key.partition(".")
    return f"{first}.block.{rest}" if first in wrapped else key
