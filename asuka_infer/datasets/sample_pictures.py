"""Colour photographs that scikit-image and scikit-learn install: pictures to try the app with, without a download."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asuka_infer.request import RgbImage


@dataclass(frozen=True)
class SamplePicture:
    """One photograph that is on disk as soon as the requirements are.

    Attributes:
        name: permanent key, safe in a file name.
        title: what it shows, for people.
        credit: author and licence, as the library that ships it states them.
        load: returns (height, width, 3) uint8 sRGB.
    """

    name: str
    title: str
    credit: str
    load: Callable[[], RgbImage]


def _from_scikit_image(name: str) -> Callable[[], RgbImage]:
    def load() -> RgbImage:
        from skimage import data  # noqa: PLC0415 - costs 0.3 s, and a study host with its own pictures never needs it

        loaded = getattr(data, name)()
        # The stereo pair comes as (left, right, disparity); the left view is the photograph.
        return np.asarray(loaded[0] if isinstance(loaded, tuple) else loaded)

    return load


def _from_scikit_learn(file: str) -> Callable[[], RgbImage]:
    def load() -> RgbImage:
        from sklearn.datasets import load_sample_image  # noqa: PLC0415 - costs 0.8 s

        return np.asarray(load_sample_image(file))

    return load


SAMPLE_PICTURES: tuple[SamplePicture, ...] = (
    SamplePicture(
        "china",
        "A temple roof in the Summer Palace",
        "danielbuechele, CC BY 2.0 (scikit-learn)",
        _from_scikit_learn("china.jpg"),
    ),
    SamplePicture("flower", "A dahlia", "vultilion, CC BY 2.0 (scikit-learn)", _from_scikit_learn("flower.jpg")),
    SamplePicture("chelsea", "A tabby cat", "Stefan van der Walt, CC0 (scikit-image)", _from_scikit_image("chelsea")),
    SamplePicture(
        "coffee", "A cup of coffee on a table", "Rachel Michetti, CC0 (scikit-image)", _from_scikit_image("coffee")
    ),
    SamplePicture("rocket", "A rocket on its pad", "SpaceX, CC0 (scikit-image)", _from_scikit_image("rocket")),
    SamplePicture("astronaut", "An astronaut", "NASA, public domain (scikit-image)", _from_scikit_image("astronaut")),
    SamplePicture(
        "motorcycle",
        "A motorcycle in a workshop",
        "Middlebury Stereo 2014, CC0 (scikit-image)",
        _from_scikit_image("stereo_motorcycle"),
    ),
)
"""Ordered so that the first is the one to try: sky, trees and a roof around things one would like to remove."""


class UnknownPictureError(KeyError):
    """A sample picture's name that does not exist."""


def find_sample_picture(name: str) -> SamplePicture:
    """The sample picture of that name.

    Raises:
        UnknownPictureError: naming the pictures there are.
    """
    for picture in SAMPLE_PICTURES:
        if picture.name == name:
            return picture
    known = ", ".join(picture.name for picture in SAMPLE_PICTURES)
    raise UnknownPictureError(f"There is no sample picture {name!r}; choose one of {known}.")
