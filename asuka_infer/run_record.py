"""How a generated image came to be, as JSON beside the PNG; standard library only, so that any host can read it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
"""Raised whenever a field is added, removed or changes its meaning."""

RECORD_SUFFIX = ".json"
"""The record of `photo.png` is `photo.json` in the same folder."""


class RecordError(ValueError):
    """A run record that cannot be understood; the message names the field and what to do."""


@dataclass(frozen=True)
class RunRecord:
    """Everything needed to make the same image again, and to see that it is generated.

    Attributes:
        method: the method's permanent key.
        seed: the image's seed.
        settings: the method's own settings, JSON values.
        framing: how the picture was cropped around the hole and scaled, JSON values.
        compositing: "exact" or "seamless".
        image_sha256: `images.pixel_sha256` of the picture that was given.
        hole_sha256: `holes.hole_sha256` of the hole.
        result_sha256: `images.pixel_sha256` of the result.
        width: of picture and result, in pixels.
        height: of picture and result, in pixels.
        weights: weight file name -> its SHA-256; empty for methods without weights.
        versions: of this app, Python and the libraries that computed the image.
        seconds: wall time of the method alone.
        created_at: ISO 8601 with its offset from UTC.
        generated: always true: the image is not a photograph.
        schema_version: `SCHEMA_VERSION` when it was written.
    """

    method: str
    seed: int
    settings: Mapping[str, Any]
    framing: Mapping[str, Any]
    compositing: str
    image_sha256: str
    hole_sha256: str
    result_sha256: str
    width: int
    height: int
    weights: Mapping[str, str]
    versions: Mapping[str, str]
    seconds: float
    created_at: str
    generated: bool = True
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for field in fields(self):
            _refuse_wrong_type(field.name, getattr(self, field.name))
        _refuse_wrong_values(self)
        for name in _MAPPING_FIELDS:
            # A copy of its own, with lists for tuples: exactly what `from_json` will read back.
            object.__setattr__(self, name, json.loads(json.dumps(dict(getattr(self, name)), default=dict)))

    def to_json(self) -> str:
        """The record as JSON text: keys sorted, two spaces, a newline at the end; the same record, the same text."""
        return json.dumps(vars(self), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RunRecord":
        """Read what `to_json` wrote.

        Raises:
            RecordError: for text that is no JSON, another schema version, unknown or missing keys or wrong values.
        """
        try:
            values: Any = json.loads(text)
        except ValueError as error:
            raise RecordError(f"The run record is not JSON ({error}); make the image again.") from error
        if not isinstance(values, dict):
            raise RecordError(f"The run record is a JSON {type(values).__name__}, not an object; make the image again.")
        _refuse_other_schema(values)
        _refuse_other_keys(set(values), {field.name for field in fields(cls)})
        return cls(**values)


def record_path(image: Path) -> Path:
    """Where the run record of an image file lies."""
    return image.with_suffix(RECORD_SUFFIX)


_DIGEST_FIELDS = frozenset({"image_sha256", "hole_sha256", "result_sha256"})
_WHOLE_FIELDS = frozenset({"seed", "width", "height", "schema_version"})
_MAPPING_FIELDS = frozenset({"settings", "framing", "weights", "versions"})
_DIGEST_LENGTH = 64


def _refuse_wrong_type(name: str, value: object) -> None:
    if name in _WHOLE_FIELDS:
        fits, expected = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif name in _MAPPING_FIELDS:
        fits, expected = isinstance(value, Mapping) and _is_json(value), "an object of JSON values with text keys"
    elif name == "seconds":
        fits, expected = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    elif name == "generated":
        fits, expected = value is True, "true"
    else:
        fits, expected = isinstance(value, str), "text"
    if not fits:
        raise RecordError(f"The run record's {name} is {value!r}, but {expected} is needed.")


def _is_json(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int, bool))


def _refuse_wrong_values(record: RunRecord) -> None:
    for name in _DIGEST_FIELDS:
        digest = getattr(record, name)
        if len(digest) != _DIGEST_LENGTH or set(digest) - set("0123456789abcdef"):
            raise RecordError(f"The run record's {name} is {digest!r}, but 64 lower-case hex digits are needed.")
    for name, least in (("seed", 0), ("width", 1), ("height", 1), ("seconds", 0)):
        value = getattr(record, name)
        if not (least <= value and math.isfinite(value)):
            raise RecordError(f"The run record's {name} is {value}, but {least} or more is needed.")
    for name in ("weights", "versions"):
        if not all(isinstance(item, str) for item in getattr(record, name).values()):
            raise RecordError(f"The run record's {name} are {getattr(record, name)!r}; every value must be text.")
    if record.compositing not in {"exact", "seamless"}:
        raise RecordError(f"The run record's compositing is {record.compositing!r}; it must be 'exact' or 'seamless'.")
    if not _has_offset(record.created_at):
        raise RecordError(
            f"The run record's created_at is {record.created_at!r}; an ISO 8601 time with its UTC offset is needed."
        )


def _has_offset(time: str) -> bool:
    try:
        return datetime.fromisoformat(time).tzinfo is not None
    except ValueError:
        return False


def _refuse_other_schema(values: dict[str, Any]) -> None:
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"The run record has schema version {version!r}, but this version reads {SCHEMA_VERSION}; "
            "use the version of the app that wrote it, or make the image again."
        )


def _refuse_other_keys(found: set[str], known: set[str]) -> None:
    if found - known:
        raise RecordError(f"The run record has unknown keys {sorted(found - known)}; another program wrote them.")
    if known - found:
        raise RecordError(f"The run record lacks {sorted(known - found)}; make the image again.")
