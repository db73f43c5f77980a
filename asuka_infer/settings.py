"""How a method declares its knobs: frozen dataclasses whose values are checked, changed by name and written as JSON."""

import difflib
import math
from abc import ABC
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, cast, runtime_checkable

from asuka_infer.compositing import exact
from asuka_infer.inpainter import SILENT, Watch
from asuka_infer.request import InpaintRequest, InpaintResult, RgbImage

Kind = Literal["whole", "number", "choice", "switch", "text"]
Value = bool | int | float | str

_KNOB = "knob"
_PLAIN_WORDS: dict[Kind, str] = {
    "whole": "a whole number",
    "number": "a number",
    "choice": "one of a few words",
    "switch": "true or false",
    "text": "a text",
}
_SWITCH_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class SettingsError(ValueError):
    """A setting that does not exist or a value it cannot take; the message says what is allowed."""


@dataclass(frozen=True)
class Knob:
    """One setting as a page, a command line or a table may show it.

    Attributes:
        name: what `with_settings` and `--set` call it.
        kind: what sort of value it takes.
        default: the value when nobody says otherwise.
        meaning: one sentence for the person who turns it.
        lowest, highest: the range of a number, both included; infinite where there is no end.
        options: the words of a choice; empty for every other kind.
    """

    name: str
    kind: Kind
    default: Value
    meaning: str
    lowest: float = -math.inf
    highest: float = math.inf
    options: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """What may be said, in words: "a whole number from 1 to 100"."""
        if self.kind == "choice":
            return " or ".join(self.options)
        if self.kind in {"whole", "number"} and (math.isfinite(self.lowest) or math.isfinite(self.highest)):
            return f"{_PLAIN_WORDS[self.kind]} from {self.lowest:g} to {self.highest:g}"
        return _PLAIN_WORDS[self.kind]

    def accepts(self, value: object) -> bool:
        """Whether `value` has the right type and lies in the range."""
        if self.kind == "switch":
            return isinstance(value, bool)
        if self.kind == "choice":
            return value in self.options
        if self.kind == "text":
            return isinstance(value, str)
        types = (int,) if self.kind == "whole" else (int, float)
        return isinstance(value, types) and not isinstance(value, bool) and self.lowest <= value <= self.highest


def whole(default: int, *, lowest: int, highest: int, meaning: str) -> Any:
    """A settings field that takes a whole number from `lowest` to `highest`."""
    return _knob_field(Knob("", "whole", default, meaning, lowest, highest))


def number(default: float, *, lowest: float, highest: float, meaning: str) -> Any:
    """A settings field that takes a number from `lowest` to `highest`; never NaN."""
    return _knob_field(Knob("", "number", default, meaning, lowest, highest))


def choice(default: str, *, options: tuple[str, ...], meaning: str) -> Any:
    """A settings field that takes one of `options`."""
    return _knob_field(Knob("", "choice", default, meaning, options=options))


def switch(*, default: bool, meaning: str) -> Any:
    """A settings field that is on or off."""
    return _knob_field(Knob("", "switch", default, meaning))


def text(default: str, *, meaning: str) -> Any:
    """A settings field that takes any text (a prompt, a file name)."""
    return _knob_field(Knob("", "text", default, meaning))


class Settings(ABC):  # noqa: B024 - nothing to override: it is abstract because it has no fields of its own
    """Base of every method's settings; subclasses are `@dataclass(frozen=True)` with the fields above.

    Raises:
        SettingsError: on construction, for a value its knob does not accept.
    """

    def __post_init__(self) -> None:
        for knob in knobs(self):
            value = getattr(self, knob.name)
            if not knob.accepts(value):
                raise SettingsError(f"{knob.name} = {value!r} is not possible; give {knob.allowed}.")


S = TypeVar("S", bound=Settings)


def knobs(settings: Settings | type[Settings]) -> tuple[Knob, ...]:
    """Every setting in the order it was declared."""
    if not is_dataclass(settings):
        return ()
    return tuple(replace(cast("Knob", item.metadata[_KNOB]), name=item.name) for item in fields(settings))


def change(settings: S, changes: Mapping[str, Any]) -> S:
    """The same settings with some values changed.

    Raises:
        SettingsError: for an unknown name or a value out of range, naming it and what is allowed.
    """
    for name in changes:
        _find_knob(settings, name)
    return cast("S", replace(cast("Any", settings), **changes))


def as_json(settings: Settings) -> dict[str, Value]:
    """Name -> value, as a run record stores it; `change` with these values gives the same settings back."""
    return asdict(cast("Any", settings)) if is_dataclass(settings) else {}


def parse_changes(settings: Settings, words: Iterable[str]) -> dict[str, Value]:
    """Read what a command line says, "name=value" each, into values of the right type.

    Raises:
        SettingsError: for a word without "=", an unknown name, or a value that cannot be read or is out of range.
    """
    changes: dict[str, Value] = {}
    for word in words:
        name, equals, said = word.partition("=")
        if not equals:
            raise SettingsError(f"{word!r} is no setting; write name=value.")
        changes[name.strip()] = _read_value(_find_knob(settings, name.strip()), said.strip())
    change(settings, changes)
    return changes


@dataclass(frozen=True)
class WorkingSize:
    """The sizes a method does its best work at; `asuka_infer.inpaint` scales and pads crops to fit.

    Attributes:
        largest: longest side in pixels; larger crops are scaled down and the fill scaled back up.
        multiple: both sides are padded to a multiple of this.
        smallest: crops around a hole are at least this long where the picture allows it.
        continues: whether the method may go on from its own fills, so that a larger hole can be filled in tiles
            (`asuka_infer.tiled`). Not those that copy pixels: copies of copies fade to a smear (seen with
            nearest-neighbour on gravel and grass), so theirs is the one look at the whole, scaled up.
        square: whether the method works on squares alone, so that what the picture has beside a longish crop costs
            nothing and would else be padding (colours of 40 longish holes were 10 % nearer to the photo's, measured).
    """

    largest: int
    multiple: int = 1
    smallest: int = 1
    continues: bool = False
    square: bool = False


@runtime_checkable
class HasWorkingSize(Protocol):
    """A method that is not equally good at every size."""

    @property
    def working_size(self) -> WorkingSize:
        """What sizes to hand it; may depend on its settings."""
        ...


class FillSettings(Settings):
    """Base of the settings of a `PureFill`: they say how large a crop may get before it is scaled down."""

    largest_side: int


F = TypeVar("F", bound=FillSettings)

Fill = Callable[[InpaintRequest, F, Watch], RgbImage]
"""A method as a function: (request, settings, watch) -> a picture of the request's size, free outside the hole."""


@dataclass(frozen=True, eq=False)
class PureFill(Generic[F]):
    """An `Inpainter` made of a pure function and its settings: there are no weights and nothing to remember.

    The function may return anything outside the hole; the known pixels are put back here, bit for bit.
    """

    fill: Fill[F]
    settings: F

    @property
    def working_size(self) -> WorkingSize:
        """Any size up to the setting `largest_side`."""
        return WorkingSize(largest=self.settings.largest_side)

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        """Fill the hole of `request`."""
        filled = self.fill(request, self.settings, watch)
        return InpaintResult(exact(request.image, filled, request.hole))

    def with_settings(self, **changes: Any) -> Self:
        """The same function with some settings changed; see `change` for errors."""
        return replace(self, settings=change(self.settings, changes))


def _knob_field(knob: Knob) -> Any:
    return field(default=knob.default, metadata={_KNOB: knob})


def _find_knob(settings: Settings, name: str) -> Knob:
    known = {knob.name: knob for knob in knobs(settings)}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    there = ", ".join(known) if known else "none"
    raise SettingsError(f"There is no setting {name!r}{hint}; the settings here are: {there}.")


def _read_value(knob: Knob, said: str) -> Value:
    try:
        if knob.kind == "whole":
            return int(said)
        if knob.kind == "number":
            return float(said)
        if knob.kind == "switch":
            return _SWITCH_WORDS[said.lower()]
    except (ValueError, KeyError):
        raise SettingsError(f"{knob.name} = {said!r} is not possible; give {knob.allowed}.") from None
    return said
