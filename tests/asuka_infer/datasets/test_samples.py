"""The sample photographs and the example study's stimuli."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from asuka_infer.datasets.sample_pictures import (
    SAMPLE_PICTURES,
    SamplePicture,
    UnknownPictureError,
    find_sample_picture,
)
from asuka_infer.datasets.sample_stimuli import (
    LARGEST_SHARE,
    SMALLEST_SHARE,
    STIMULUS_SIDE,
    sample_stimuli,
    seeded_hole,
    write_sample_stimuli,
)
from asuka_infer.holes import read_hole
from asuka_infer.images import read_image


@pytest.mark.parametrize("picture", SAMPLE_PICTURES, ids=lambda picture: picture.name)
def test_every_sample_picture_is_a_colour_photograph_on_this_disk(picture: SamplePicture) -> None:
    pixels = picture.load()
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert min(pixels.shape[:2]) >= STIMULUS_SIDE
    assert (pixels[..., 0] != pixels[..., 2]).any(), "red and blue differ somewhere: it is no grey picture"
    assert picture.credit


def test_an_unknown_sample_picture_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownPictureError, match="chelsea"):
        find_sample_picture("mona-lisa")


def test_there_are_at_least_twenty_stimuli_with_names_of_their_own() -> None:
    names = [stimulus.name for stimulus in sample_stimuli()]
    assert len(names) >= 20
    assert len(set(names)) == len(names)


def test_no_two_stimuli_show_the_same_pixels() -> None:
    for one, other in combinations(sample_stimuli(), 2):
        assert (one.image != other.image).any()


def test_the_same_seed_makes_the_same_stimuli_and_another_seed_does_not() -> None:
    first, again, other = sample_stimuli(3), sample_stimuli(3), sample_stimuli(4)
    assert all((a.image == b.image).all() and (a.hole == b.hole).all() for a, b in zip(first, again, strict=True))
    assert any((a.hole != b.hole).any() for a, b in zip(first, other, strict=False))


def test_holes_cover_between_a_tenth_and_a_third() -> None:
    rng = np.random.default_rng(0)
    shares = [seeded_hole(STIMULUS_SIDE, rng).mean() for _ in range(200)]
    assert min(shares) >= SMALLEST_SHARE
    assert max(shares) <= LARGEST_SHARE


def test_what_is_written_reads_back_as_it_was(tmp_path: Path) -> None:
    count = write_sample_stimuli(tmp_path)
    stimuli = sample_stimuli()
    assert count == len(stimuli)
    for stimulus in stimuli[::7]:
        picture = read_image(tmp_path / "images" / f"{stimulus.name}.png")
        assert (picture.pixels == stimulus.image).all()
        assert (read_hole(tmp_path / "holes" / f"{stimulus.name}.png") == stimulus.hole).all()
