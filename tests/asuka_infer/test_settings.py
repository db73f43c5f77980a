"""Settings: declared once, checked everywhere."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asuka_infer.inpainter import Inpainter, Watch
from asuka_infer.request import InpaintRequest, RgbImage
from asuka_infer.settings import (
    FillSettings,
    PureFill,
    Settings,
    SettingsError,
    WorkingSize,
    as_json,
    change,
    choice,
    knobs,
    number,
    parse_changes,
    switch,
    text,
    whole,
)


@dataclass(frozen=True)
class Oven(Settings):
    minutes: int = whole(10, lowest=1, highest=90, meaning="How long.")
    heat: float = number(180.0, lowest=50.0, highest=250.0, meaning="How hot, in degrees.")
    mode: str = choice("fan", options=("fan", "grill"), meaning="How.")
    light: bool = switch(default=True, meaning="Whether one sees.")
    label: str = text("", meaning="What is in it.")


@dataclass(frozen=True)
class Bare(Settings):
    """Nothing to turn."""


def test_a_value_out_of_range_is_refused_on_construction_too() -> None:
    with pytest.raises(SettingsError, match=r"minutes = 91 is not possible; give a whole number from 1 to 90\."):
        Oven(minutes=91)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("minutes", 1.5),
        ("minutes", True),
        ("minutes", "10"),
        ("heat", float("nan")),
        ("heat", float("inf")),
        ("heat", None),
        ("mode", "steam"),
        ("mode", ["fan"]),
        ("light", 1),
        ("label", 7),
    ],
)
def test_wrong_types_and_values_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"^{name} = "):
        change(Oven(), {name: value})


def test_an_unknown_name_is_refused_with_the_nearest_and_all_names() -> None:
    with pytest.raises(SettingsError, match=r"'minute' \(did you mean minutes\?\).*minutes, heat, mode, light, label"):
        change(Oven(), {"minute": 3})
    with pytest.raises(SettingsError, match="the settings here are: none"):
        change(Bare(), {"x": 1})


@given(
    st.integers(1, 90),
    st.floats(50, 250),
    st.sampled_from(["fan", "grill"]),
    st.booleans(),
    st.text(max_size=20),
)
def test_settings_come_back_from_their_json_form(minutes: int, heat: float, mode: str, light: bool, label: str) -> None:  # noqa: FBT001 - drawn by hypothesis
    oven = Oven(minutes, heat, mode, light, label)
    assert change(Oven(), as_json(oven)) == oven


def test_a_command_line_is_read_into_the_right_types() -> None:
    words = ["minutes=25", "heat=99.5", "mode=grill", "light=no", "label=a=b"]
    assert parse_changes(Oven(), words) == {
        "minutes": 25,
        "heat": 99.5,
        "mode": "grill",
        "light": False,
        "label": "a=b",
    }


@pytest.mark.parametrize("word", ["minutes", "minutes=ten", "heat=", "light=maybe", "mode=steam", "time=3", "heat=nan"])
def test_a_command_line_that_cannot_be_read_is_refused(word: str) -> None:
    with pytest.raises(SettingsError):
        parse_changes(Oven(), [word])


def test_knobs_say_in_words_what_is_allowed() -> None:
    assert [(knob.name, knob.allowed) for knob in knobs(Oven)] == [
        ("minutes", "a whole number from 1 to 90"),
        ("heat", "a number from 50 to 250"),
        ("mode", "fan or grill"),
        ("light", "true or false"),
        ("label", "a text"),
    ]
    assert knobs(Bare()) == ()
    assert as_json(Bare()) == {}


@dataclass(frozen=True)
class PaintSettings(FillSettings):
    level: int = whole(7, lowest=0, highest=255, meaning="The grey to paint.")
    largest_side: int = whole(40, lowest=8, highest=64, meaning="Longest side.")


def paint(request: InpaintRequest, settings: PaintSettings, watch: Watch) -> RgbImage:
    watch.step(1, 1)
    return np.full_like(request.image, settings.level)


def test_a_pure_function_becomes_an_inpainter_that_keeps_the_known_pixels() -> None:
    method = PureFill(paint, PaintSettings())
    assert isinstance(method, Inpainter)
    image = np.full((4, 5, 3), 200, np.uint8)
    hole = np.zeros((4, 5), bool)
    hole[1, 2] = True
    result = method.with_settings(level=90)(InpaintRequest(image, hole)).image
    assert result[1, 2].tolist() == [90, 90, 90]
    assert (result[~hole] == 200).all()
    assert method.settings == PaintSettings()
    assert method.working_size == WorkingSize(largest=40)
    assert method.with_settings(largest_side=64).working_size.largest == 64
