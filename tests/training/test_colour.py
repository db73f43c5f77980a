"""Colour jitter against torchvision's, and the hue against the colour circle."""

import pytest
import torch
from torchvision.transforms import functional as vision

from training.colour import Change, Jitter, draw_change, recolour


def change(brightness: float = 1, contrast: float = 1, saturation: float = 1, hue: float = 0) -> Change:
    return Change(*(torch.tensor([float(value)]) for value in (brightness, contrast, saturation, hue)))


PICTURES = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_every_change_is_torchvisions() -> None:
    for changed, expected in (
        (change(brightness=1.1), vision.adjust_brightness(PICTURES, 1.1)),
        (change(contrast=0.8), vision.adjust_contrast(PICTURES, 0.8)),
        (change(saturation=0.9), vision.adjust_saturation(PICTURES, 0.9)),
        (change(hue=0.03), vision.adjust_hue(PICTURES, 0.03)),
        (change(hue=-0.03), vision.adjust_hue(PICTURES, -0.03)),
    ):
        assert torch.allclose(recolour(PICTURES, changed), expected, atol=1e-4)


def test_no_change_changes_nothing() -> None:
    assert torch.allclose(recolour(PICTURES, change()), PICTURES, atol=1e-5)


def test_a_third_of_the_circle_turns_red_into_green_and_leaves_grey_alone() -> None:
    grey, red = torch.full((1, 3, 1, 1), 0.5), torch.tensor([0.6, 0.5, 0.5]).view(1, 3, 1, 1)

    assert recolour(red, change(hue=1 / 3)).flatten().tolist() == pytest.approx([0.5, 0.6, 0.5], abs=1e-3)
    assert torch.allclose(recolour(grey, change(hue=1 / 3)), grey, atol=1e-3)


def test_changes_stay_in_their_ranges_and_reach_both_ends() -> None:
    drawn = draw_change(5000, Jitter(), torch.Generator().manual_seed(1), torch.device("cpu"))

    for values, centre, reach in (
        (drawn.brightness, 1, 0.15),
        (drawn.contrast, 1, 0.2),
        (drawn.saturation, 1, 0.1),
        (drawn.hue, 0, 0.03),
    ):
        assert float(values.min()) == pytest.approx(centre - reach, abs=0.01 * max(reach, 0.1))
        assert float(values.max()) == pytest.approx(centre + reach, abs=0.01 * max(reach, 0.1))


def test_every_picture_is_changed_by_its_own_amount() -> None:
    pictures = torch.full((2, 3, 2, 2), 0.5)
    both = Change(torch.tensor([1.0, 1.2]), torch.ones(2), torch.ones(2), torch.zeros(2))

    assert recolour(pictures, both)[:, 0, 0, 0].tolist() == pytest.approx([0.5, 0.6], abs=1e-4)
