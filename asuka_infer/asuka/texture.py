"""The photograph's own texture, continued into the hole along a guide: coarse-to-fine patch correspondences.

What a network trained for an hour draws is right in colour and place and too smooth; the photograph shows beside the
hole what grass and brick look like. Patches of the drawn picture (the guide) are matched with whole known patches,
which then vote on every pixel (Wexler et al., "Space-time completion of video", 2007); coarse matches are refined by
their neighbours' (Barnes et al., "PatchMatch", 2009). Nothing is learned and nothing is random. The method
`nearest-neighbour` does the like without a guide, to the bit on any machine, in seconds; this takes a tenth of one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

SHRINKAGES = (4, 2, 1)
"""Resolutions, as pixels per side of a cell. Beginning at 8 the matches were worse (perceptual distance of what is
copied, 48 held-out photographs: .310 against .276)."""

RADIUS = 2
"""Of patches at the coarse resolutions: 5 x 5 cells, 20 px at the coarsest; 7 x 7 was worse (.279 against .270)."""

FINEST_RADIUS = 1
"""Of patches at full size, where only the picture is put together."""

REFINEMENTS = 2
"""Rounds of looking at the neighbours' matches at the resolutions between; one was worse (.269 against .267)."""

GUIDE_WEIGHT = 2.0
"""How much the blurred guide counts beside the patch itself; 2 measured better than .5 (.270 against .274)."""

DISTANCE_WEIGHT = 0.02
"""Squared colour difference that a source a whole picture away must make up for. Our choice: shades go on nearby."""

VOTE_SPREAD = 1.2
"""Standard deviation in cells with which a patch counts around its middle. Our choice."""

FEWEST_SOURCES = 16
"""With fewer whole known patches there is no texture to continue: our choice, a square of 4 x 4 places."""

COLOUR_CELL = 16
"""Side in px of the means that stay the guide's: copied shades would end in contours on skies and walls."""

TOLERANCE = 0.05
"""Difference between those means and the copied ones, of 1, at which a copy counts 1/e: where nothing known has the
guide's colours, what was copied is of something else (a sky in the sea, a wall on a sheep; looked at). At .1 and a
share of .75 the perceptual distance was .255, here .253."""

TINY = 1e-12
"""Keeps a division by nothing finite; what it gives is not used."""


@torch.no_grad()
def continue_texture(
    image: Float[Tensor, "batch 3 height width"],
    hole: Bool[Tensor, "batch 1 height width"],
    guide: Float[Tensor, "batch 3 height width"],
    share: float = 1.0,
) -> Float[Tensor, "batch 3 height width"]:
    """The picture with each hole filled by known detail in the guide's colours; known pixels stay as they are.

    Where hardly a patch is known, the guide itself. What the image holds under the hole is never read.

    Args:
        image: RGB in [0, 1], sides multiples of 8.
        hole: True = missing.
        guide: RGB in [0, 1]; read inside the hole only.
        share: of the copied detail where it fits, from 0 (the guide) to 1; less where it does not (TOLERANCE).
    """
    image, guide = image.float(), torch.where(hole, guide.float(), image.float())
    copied = torch.stack([_copy(*one) for one in zip(image, hole[:, 0], guide, strict=True)])
    apart = _colours(guide) - _colours(copied)
    fits = torch.exp(-apart.square().mean(1, keepdim=True) / TOLERANCE**2)
    detailed = torch.lerp(guide, (copied + apart).clamp(0, 1), share * fits)
    return torch.where(hole, detailed, image)


@dataclass(frozen=True)
class _Level:
    """One resolution: the guided picture, what of it is missing, whose patches overlap that, and which are whole."""

    picture: Float[Tensor, "3 h w"]
    missing: Bool[Tensor, "h w"]
    targets: Int[Tensor, " targets"]
    whole: Bool[Tensor, " cells"]
    radius: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in cells."""
        return self.missing.shape[0], self.missing.shape[1]


def _copy(
    image: Float[Tensor, "3 height width"], hole: Bool[Tensor, "height width"], guide: Float[Tensor, "3 height width"]
) -> Float[Tensor, "3 height width"]:
    coarse, *finer = (_level(image, hole, guide, shrinkage) for shrinkage in SHRINKAGES)
    if not len(coarse.targets) or int(coarse.whole.sum()) < FEWEST_SOURCES:
        return guide
    sources, picture = _search(coarse)
    before = coarse
    for level in finer:
        sources = _inherited(sources, before, level)
        picture = _vote(level, level.picture, sources, torch.ones_like(sources, dtype=picture.dtype))
        for _ in range(REFINEMENTS if level is not finer[-1] else 0):
            sources, error = _refined(level, picture, sources)
            picture = _vote(level, picture, sources, _trust(error))
        before = level
    return picture


def _level(image: Tensor, hole: Tensor, guide: Tensor, shrinkage: int) -> _Level:
    share = functional.avg_pool2d((~hole).to(image)[None], shrinkage)
    missing = share[0] < 1
    known = functional.avg_pool2d(torch.where(hole, 0.0, image), shrinkage) / share.clamp(min=TINY)
    picture = torch.where(missing, functional.avg_pool2d(guide, shrinkage), known)
    radius = FINEST_RADIUS if shrinkage == SHRINKAGES[-1] else RADIUS
    gone = missing.to(image)[None]
    overlapping = functional.max_pool2d(gone, 2 * radius + 1, 1, radius) > 0
    # Beyond the picture's edge nothing is known, so a whole patch lies inside.
    broken = functional.max_pool2d(functional.pad(gone, (RADIUS,) * 4, value=1.0), 2 * RADIUS + 1, 1) > 0
    return _Level(picture, missing, overlapping.flatten().nonzero()[:, 0], ~broken.flatten(), radius)


def _search(level: _Level) -> tuple[Int[Tensor, " targets"], Float[Tensor, "3 h w"]]:
    """For every target the whole patch most like it, and the picture that these matches make.

    At first blurred patches are compared, because the guide has no detail to compare; then what the votes made of it,
    so that stripes and bricks meet. Still more rounds prefer flat patches, which repeat.
    """
    known = level.whole.nonzero()[:, 0]
    height, width = level.size
    cells = torch.arange(height * width, device=known.device)
    places = torch.stack([cells // width / height, cells % width / width], dim=1)
    blurred = _blurred(level.picture)
    handicap = GUIDE_WEIGHT * _differences(_patches(blurred, 1), level.targets, known)
    handicap += DISTANCE_WEIGHT * torch.cdist(places[level.targets], places[known])
    picture, sources = level.picture, level.targets
    for compared in (_blurred, _as_it_is):
        patches = _patches(compared(picture), level.radius)
        error, nearest = (_differences(patches, level.targets, known) + handicap).min(1)
        sources = known[nearest]
        picture = _vote(level, picture, sources, _trust(error))
    return sources, picture


def _inherited(sources: Int[Tensor, " before"], before: _Level, level: _Level) -> Int[Tensor, " targets"]:
    """The matches of a coarser level, at this one: as far away in the picture as they were."""
    (old_height, old_width), (height, width) = before.size, level.size
    scale = height // old_height
    shift = torch.zeros(2, old_height * old_width, dtype=torch.long, device=sources.device)
    shift[0, before.targets] = (sources // old_width - before.targets // old_width) * scale
    shift[1, before.targets] = (sources % old_width - before.targets % old_width) * scale
    row, column = level.targets // width, level.targets % width
    down, right = shift[:, (row // scale) * old_width + column // scale]
    return (row + down).clamp(0, height - 1) * width + (column + right).clamp(0, width - 1)


def _refined(
    level: _Level, picture: Float[Tensor, "3 h w"], sources: Int[Tensor, " targets"]
) -> tuple[Int[Tensor, " targets"], Float[Tensor, " targets"]]:
    """The best of every target's match and its four neighbours', shifted along; and how unlike it still is.

    Its own match is always whole: it lies in a cell around which everything was known at the coarser level.
    """
    height, width = level.size
    row, column = level.targets // width, level.targets % width
    shift = torch.zeros(2, height, width, dtype=torch.long, device=sources.device)
    shift[0, row, column], shift[1, row, column] = sources // width - row, sources % width - column
    patches = _patches(picture, level.radius)
    wanted = patches[level.targets]
    best, found = wanted.new_full((len(sources),), torch.inf), sources
    for step_down, step_right in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
        down, right = shift[:, (row + step_down).clamp(0, height - 1), (column + step_right).clamp(0, width - 1)]
        below, beside = row + down, column + right
        source = below.clamp(0, height - 1) * width + beside.clamp(0, width - 1)
        inside = (below >= 0) & (below < height) & (beside >= 0) & (beside < width) & level.whole[source]
        error = (wanted - patches[source]).square().mean(1)
        better = inside & (error < best)
        best, found = torch.where(better, error, best), torch.where(better, source, found)
    return found, best


def _vote(
    level: _Level,
    picture: Float[Tensor, "3 h w"],
    sources: Int[Tensor, " targets"],
    trust: Float[Tensor, " targets"],
) -> Float[Tensor, "3 h w"]:
    """Every missing cell as the mean of what the matches of all patches around it say."""
    side = 2 * level.radius + 1
    offset = torch.arange(-level.radius, level.radius + 1, device=picture.device)
    fall = torch.exp(-(offset[:, None] ** 2 + offset**2) / (2 * VOTE_SPREAD**2)).flatten().to(picture)
    weight = trust[:, None, None] * fall
    said = _patches(picture, level.radius)[sources].unflatten(1, (3, side**2)) * weight
    heard = picture.new_zeros(level.missing.numel(), 4 * side**2)
    heard[level.targets] = torch.cat([said, weight], dim=1).flatten(1)
    total = functional.fold(heard.T[None], level.size, side, padding=level.radius)[0]
    return torch.where(level.missing, total[:3] / total[3:].clamp(min=TINY), picture)


def _trust(error: Float[Tensor, " targets"]) -> Float[Tensor, " targets"]:
    """Wexler et al.'s weights: the third quartile of the errors sets the scale."""
    return torch.exp(-error / (2 * error.quantile(0.75) + TINY))


def _differences(
    patches: Float[Tensor, "cells values"], targets: Int[Tensor, " targets"], known: Int[Tensor, " known"]
) -> Float[Tensor, "targets known"]:
    return torch.cdist(patches[targets], patches[known]).square() / patches.shape[1]


def _patches(picture: Float[Tensor, "3 h w"], radius: int) -> Float[Tensor, "cells values"]:
    edged = functional.pad(picture[None], (radius,) * 4, mode="replicate")
    return functional.unfold(edged, 2 * radius + 1)[0].T.contiguous()


def _blurred(picture: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """By the binomial kernel of five cells in both directions."""
    kernel = picture.new_tensor([1, 4, 6, 4, 1]) / 16
    edged = functional.pad(picture[:, None], (2,) * 4, mode="replicate")
    return functional.conv2d(edged, torch.outer(kernel, kernel)[None, None])[:, 0]


def _as_it_is(picture: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    return picture


def _colours(picture: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """What varies slowly: means of cells, joined smoothly."""
    height, width = picture.shape[-2:]
    size = (max(1, height // COLOUR_CELL), max(1, width // COLOUR_CELL))
    means = functional.adaptive_avg_pool2d(picture, size)
    return functional.interpolate(means, size=(height, width), mode="bilinear", align_corners=False)
