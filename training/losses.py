"""What training minimises: pure functions of tensors, and the critic; noise itself is asuka_infer.asuka.schedule."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

SCALES: tuple[tuple[int, float], ...] = ((1, 1.0), (2, 0.5), (4, 0.5))
"""Shrinkings and their weights in the multi-scale L1 (measured well in the pilot: docs/training.md)."""


def multi_scale_l1(
    result: Float[Tensor, "batch 3 height width"],
    truth: Float[Tensor, "batch 3 height width"],
    scales: tuple[tuple[int, float], ...] = SCALES,
) -> Float[Tensor, ""]:
    """Weighted sum of the mean absolute differences of the pictures and of their area-shrunk copies."""
    return sum(
        (
            weight * functional.l1_loss(functional.avg_pool2d(result, shrink), functional.avg_pool2d(truth, shrink))
            for shrink, weight in scales
        ),
        start=torch.zeros((), device=result.device),
    )


def kl_to_unit_gaussian(mean: Tensor, log_variance: Tensor) -> Float[Tensor, ""]:
    """KL divergence of N(mean, exp(log_variance)) from N(0, 1), averaged over all latent values."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def grid_left(
    picture: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"], period: int
) -> Float[Tensor, ""]:
    """How much of a pattern repeats every `period` pixels inside the hole; photographs have next to none.

    Detail (what a box blur takes away) is averaged over all cells of the grid, pixel of the cell by pixel: what is no
    grid averages out. A perceptual network alone likes such grids, eyes do not.
    """
    blurred = functional.avg_pool2d(picture, period + 1, stride=1, padding=period // 2, count_include_pad=False)
    cells = functional.pixel_unshuffle((picture - blurred) * hole, period).sum((2, 3))
    counted = functional.pixel_unshuffle(hole.to(picture), period).sum((2, 3))
    pattern = cells.unflatten(1, (3, -1)) / counted[:, None].clamp(min=1)
    return pattern.abs().mean()


def edges_left(
    picture: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"], period: int
) -> Float[Tensor, ""]:
    """How much harder steps between cells of `period` px are than those inside cells, in the hole; 0 in photographs.

    The other half of `grid_left`: cells that differ in tone leave no pattern that repeats, yet all their borders are
    seen. Absolute difference of the two mean step heights, by picture, summed over both directions.
    """
    excess = torch.zeros(len(picture), device=picture.device)
    for axis in (2, 3):
        count = picture.shape[axis] - 1
        steps = (picture.narrow(axis, 1, count) - picture.narrow(axis, 0, count)).abs().mean(1, keepdim=True)
        inside = (hole.narrow(axis, 1, count) & hole.narrow(axis, 0, count)).to(picture)
        shape = [1, 1, 1, 1]
        shape[axis] = count
        between = (torch.arange(count, device=picture.device) % period == period - 1).view(shape).to(picture)
        heights = [
            (steps * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1)
            for weight in (inside * between, inside * (1 - between))
        ]
        excess = excess + (heights[0] - heights[1]).abs()
    return excess.mean()


def weighted_mse(prediction: Tensor, target: Tensor, weight: Tensor) -> Float[Tensor, ""]:
    """Mean squared error under a weight that broadcasts over channels; weights of 0 leave places out.

    No weight at all gives NaN, which the loop refuses; looking for it here would make a GPU wait at every step.
    """
    weight = weight.expand_as(prediction)
    return ((prediction - target).square() * weight).sum() / weight.sum()


def hole_weight(hole: Tensor, outside: float) -> Tensor:
    """1 inside the hole, `outside` elsewhere."""
    return torch.where(hole, 1.0, outside)


def logit_normal_times(
    count: int, *, mean: float, spread: float, generator: torch.Generator, device: torch.device
) -> Float[Tensor, " count"]:
    """Times in (0, 1), most of them in the middle (Esser et al., 2024); a positive mean leans towards noise."""
    return torch.sigmoid(mean + spread * torch.randn(count, generator=generator, device=device))


class PatchCritic(nn.Module):
    """A small PatchGAN (Isola et al., 2017): one score for each overlapping patch of 34 px; spectrally normalised."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = [(3, width, 2), (width, 2 * width, 2), (2 * width, 4 * width, 1), (4 * width, 1, 1)]
        layers: list[nn.Module] = []
        for inputs, outputs, stride in sizes:
            layers += [nn.utils.parametrizations.spectral_norm(nn.Conv2d(inputs, outputs, 4, stride, 1))]
            layers += [nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 1 rows columns"]:
        """High scores for patches that look real."""
        return self.layers(images)


class Adversary(nn.Module):
    """A critic and what it says to both sides in one pass, so that one backward pass teaches both."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.critic = PatchCritic(width)

    def forward(
        self,
        real: Float[Tensor, "batch 3 height width"],
        made: Float[Tensor, "batch 3 height width"],
        where: Bool[Tensor, "batch 1 height width"] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """What the maker minimises (without moving the critic) and what the critic does (without moving the maker).

        `where`, a patch counts by how much of its middle was made: the rest is a copy, which nobody could tell apart.
        """
        as_it_is = {name: value.detach() for name, value in self.critic.named_parameters()}
        scores = functional_call(self.critic, as_it_is, (made,))
        weight = None if where is None else functional.adaptive_avg_pool2d(where.float(), scores.shape[-2:])
        return fooling(scores, weight), critic_hinge(self.critic(real), self.critic(made.detach()), weight)


def critic_hinge(real: Tensor, fake: Tensor, weight: Tensor | None = None) -> Float[Tensor, ""]:
    """What a critic minimises: scores of real patches above 1 and of made ones below -1 cost nothing."""
    return 0.5 * _mean(functional.relu(1 - real) + functional.relu(1 + fake), weight)


def fooling(fake: Tensor, weight: Tensor | None = None) -> Float[Tensor, ""]:
    """What the maker of pictures minimises against a hinge critic."""
    return -_mean(fake, weight)


def _mean(values: Tensor, weight: Tensor | None) -> Float[Tensor, ""]:
    return values.mean() if weight is None else (values * weight).sum() / weight.sum()
