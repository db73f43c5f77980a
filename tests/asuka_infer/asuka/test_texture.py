"""The continued texture: what is known of the picture goes on, in the guide's colours, and nothing else does."""

import pytest
import torch
from torch import Tensor

from asuka_infer.asuka.texture import continue_texture


def stripes(size: int = 128, period: int = 16) -> Tensor:
    """Slanted stripes whose period is a whole number of the coarsest cells, so that an exact match exists."""
    row, column = torch.arange(size)[:, None], torch.arange(size)
    wave = 0.5 + 0.4 * torch.sin(2 * torch.pi * (row + column) / period)
    return wave.expand(1, 3, size, size).clone()


def square(size: int = 128, start: int = 48, side: int = 24) -> Tensor:
    hole = torch.zeros(1, 1, size, size, dtype=torch.bool)
    hole[..., start : start + side, start : start + side] = True
    return hole


def mean_error(picture: Tensor, truth: Tensor, hole: Tensor) -> float:
    return float((picture - truth).abs()[hole.expand_as(truth)].mean())


def test_stripes_go_on_where_the_guide_shows_their_mean_alone() -> None:
    truth, hole = stripes(), square()
    guide = torch.full_like(truth, 0.5)
    found = continue_texture(truth, hole, guide)

    assert torch.equal(found[~hole.expand_as(found)], truth[~hole.expand_as(found)])
    assert mean_error(found, truth, hole) < 0.25 * mean_error(guide, truth, hole)


def test_between_two_textures_the_guide_says_which_goes_where() -> None:
    """Dark stripes above, bright ones below; the guide knows the two tones and a border in the hole's middle."""
    below = torch.arange(128)[:, None].expand(128, 128) >= 60
    tone = torch.where(below, 0.75, 0.25).expand(1, 3, 128, 128)
    truth = tone + (stripes() - 0.5) / 4
    hole = square()
    found = continue_texture(truth, hole, tone)

    assert mean_error(found, truth, hole) < 0.5 * mean_error(tone, truth, hole)


def test_slow_shades_stay_the_guides() -> None:
    """A sky that brightens downwards, its noise continued: means of large cells follow the guide, not the sources."""
    generator = torch.Generator().manual_seed(0)
    shade = torch.linspace(0.2, 0.8, 128)[:, None].expand(1, 3, 128, 128)
    truth = shade + 0.05 * torch.randn(1, 3, 128, 128, generator=generator)
    hole = square(start=32, side=64)
    found = continue_texture(truth, hole, shade)

    means = torch.nn.functional.avg_pool2d(found - shade, 16)[..., 3:5, 3:5]
    assert float(means.abs().max()) < 0.03
    # A match of noise is a mean of votes, so some of the noise goes; a guide without any has none to lose.
    spread = (found - shade)[hole.expand_as(found)].std()
    assert 0.015 < float(spread) < 0.06


def test_a_share_of_the_detail_is_that_share_of_the_way_from_the_guide() -> None:
    truth, hole = stripes(), square()
    guide = torch.full_like(truth, 0.5)
    all_of_it, third = continue_texture(truth, hole, guide), continue_texture(truth, hole, guide, 1 / 3)
    assert torch.equal(continue_texture(truth, hole, guide, 0.0), torch.where(hole, guide, truth))
    assert torch.allclose(third, torch.where(hole, guide + (all_of_it - guide) / 3, truth), atol=1e-6)


def test_detail_of_quite_other_colours_is_left_away() -> None:
    """A red guide among grey stripes: nothing known is red, so what is nearest is of something else."""
    truth, hole = stripes(), square(start=32, side=64)
    red = torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1).expand_as(truth)
    middle = torch.zeros_like(hole)
    middle[..., 52:76, 52:76] = True  # where no mean of 16 px reaches the grey
    assert mean_error(continue_texture(truth, hole, red), red, middle) < 0.001


def test_what_stands_under_the_hole_is_never_read() -> None:
    truth, hole = stripes(), square()
    guide = torch.full_like(truth, 0.5)
    hidden = torch.where(hole, torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)), truth)
    assert torch.equal(continue_texture(hidden, hole, guide), continue_texture(truth, hole, guide))


def test_each_picture_is_continued_on_its_own() -> None:
    one, other = stripes(), 1 - stripes(period=24)
    holes = torch.cat([square(), square(start=16, side=40)])
    pictures = torch.cat([one, other])
    guides = torch.full_like(pictures, 0.5)
    together = continue_texture(pictures, holes, guides)
    for row in range(2):
        alone = continue_texture(pictures[row : row + 1], holes[row : row + 1], guides[row : row + 1])
        assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("known", [0, 12])
def test_where_hardly_anything_is_known_the_guide_stands(known: int) -> None:
    truth = stripes(64)
    hole = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    hole[..., :known, :known] = False
    guide = torch.rand(truth.shape, generator=torch.Generator().manual_seed(2))
    expected = torch.where(hole, guide, truth)
    assert torch.allclose(continue_texture(truth, hole, guide), expected, atol=1e-6)


def test_without_a_hole_nothing_changes() -> None:
    truth = stripes(64)
    nothing = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    assert torch.equal(continue_texture(truth, nothing, torch.zeros_like(truth)), truth)


@pytest.mark.parametrize("size", [(8, 8), (24, 40), (64, 136)])
def test_any_sides_of_whole_cells_will_do(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    image, guide = torch.rand(2, 1, 3, *size, generator=generator)
    hole = torch.rand(1, 1, *size, generator=generator) > 0.9
    found = continue_texture(image, hole, guide)
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
