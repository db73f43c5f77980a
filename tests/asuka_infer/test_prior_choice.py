"""What the auto-encoder may be shown instead of the photo, as settings that stand in a record."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from asuka_infer.prior_choice import PICTURE_SIDE, PriorSettings, prior_pixels, prior_text
from asuka_infer.settings import SettingsError, change


def two_halves(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width // 2 :] = (200, 30, 60)
    return picture


def test_the_photo_itself_needs_no_other_picture() -> None:
    assert prior_pixels(PriorSettings(), 64) is None


def test_blank_paper_is_white_and_a_colour_is_that_colour() -> None:
    blank = prior_pixels(PriorSettings(prior="blank", prior_colour="#102030"), 8)
    colour = prior_pixels(PriorSettings(prior="colour", prior_colour="#1020fF"), 8)
    assert blank is not None
    assert colour is not None
    assert blank.shape == (8, 8, 3)
    assert (blank == 255).all()
    assert (colour == (16, 32, 255)).all()


def test_a_picture_arrives_as_it_was_small_and_square_and_survives_a_record() -> None:
    settings = PriorSettings(prior="picture", prior_picture=prior_text(two_halves(64, 128)))
    seen = prior_pixels(PriorSettings(**json.loads(json.dumps(asdict(settings)))), 64)
    assert seen is not None
    assert np.array_equal(seen, two_halves(64, 64))


def test_a_large_picture_is_made_small() -> None:
    text = prior_text(np.random.default_rng(0).integers(0, 256, (2000, 3000, 3)).astype(np.uint8))
    PriorSettings(prior="picture", prior_picture=text)
    assert PICTURE_SIDE == 256


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prior": "dog"}, "photo or blank or colour or picture"),
        ({"prior": "colour", "prior_colour": "red"}, "#rrggbb"),
        ({"prior": "picture"}, "prior_picture is empty"),
        ({"prior": "picture", "prior_picture": "!"}, "cannot be read"),
        ({"prior": "picture", "prior_picture": "aGVsbG8="}, "cannot be read"),
        ({"prior": "picture", "prior_picture": "A" * 500_000}, "at most 400000"),
    ],
)
def test_what_cannot_be_shown_is_explained(changes: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        change(PriorSettings(), changes)
