"""Results of methods that have no loader here (Co-Mod, DeepFill, EdgeConnect, ...), brought to the form of a batch.

A folder of pictures and a small manifest become OUT/KEY/NAME.png with run records, as `batch` writes them: sizes and
known pixels checked, composited like everybody's. The manifest is `imported.toml` in the folder:

    key = "co-mod"                     # the method's permanent name; none of the catalog's
    title = "Co-Mod-GAN"
    citation = "S. Zhao et al., ICLR 2021"
    licence = "BSD-2-Clause, NVIDIA non-commercial"
    made_with = "the authors' code, commit 1a2b3c, weights Places2 512"
    name = "{stem}_result.png"         # optional; else any picture called like the photograph
    seed = 0                           # optional, if there was one
    [weights]                          # optional: file name -> SHA-256
    [settings]                         # optional: whatever they were
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from asuka_infer.batch import PNG_TEXT_KEY, Pair, pair_up
from asuka_infer.catalog import METHODS
from asuka_infer.compositing import Compositing, changed_outside, exact, seamless
from asuka_infer.holes import HoleError, hole_sha256, read_hole
from asuka_infer.images import ImageError, encode_png, pixel_sha256, read_image, write_atomically
from asuka_infer.inpaint import APP_VERSION
from asuka_infer.request import LARGEST_SEED, Hole, RgbImage
from asuka_infer.run_record import RunRecord, record_path

MANIFEST = "imported.toml"
"""The manifest's name in the folder of results."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

FARTHEST_KNOWN = 24.0
"""Mean difference of the known pixels, in 8-bit levels, that still passes for the same picture. Our choice: the round
trip of an autoencoder or a strong JPEG stays below 10; a shifted, flipped or other photograph lies at 30 and above."""

MOST_TOLD = 40
"""Problems that can still be read; the rest is counted."""

_TEXTS = ("key", "title", "citation", "licence", "made_with")
_OPTIONAL = ("name", "seed", "weights", "settings")


class ResultsError(ValueError):
    """Results or a manifest that cannot be imported; the message names every problem."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        told = "; ".join(problems[:MOST_TOLD]) + (
            f"; and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
        )
        super().__init__(f"{told}. Nothing was written.")


@dataclass(frozen=True)
class Manifest:
    """What is known about how the results were made; see the module's first lines."""

    key: str
    title: str
    citation: str
    licence: str
    made_with: str
    name: str = ""
    seed: int = 0
    weights: Mapping[str, str] = field(default_factory=dict[str, str])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Imported:
    """One result that was written.

    Attributes:
        stem: of the photograph.
        changed_before: known pixels that differed before the compositing.
    """

    stem: str
    changed_before: int


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of results.

    Raises:
        ResultsError: when it is missing, cannot be read, has unknown or missing entries, or a key that is taken.
    """
    path = folder / MANIFEST
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(
            [f"{path} cannot be read ({error}); write one with {', '.join(_TEXTS)} (see --help)"]
        ) from error
    problems = [f"{path} has no {name}" for name in _TEXTS if name not in values]
    problems += [f"{path} has an unknown entry {name!r}" for name in values if name not in {*_TEXTS, *_OPTIONAL}]
    problems += [f"{path}: {problem}" for problem in _wrong_values(values)]
    if problems:
        raise ResultsError(problems)
    return Manifest(**values)


def import_results(
    results: Path, images: Path, holes: Path, out: Path, *, compositing: Compositing = "exact"
) -> Iterator[Imported]:
    """Check everything, then write OUT/KEY/NAME.png and its run record for every photograph, reporting each.

    Args:
        results: the folder with the pictures and the manifest.
        images: the photographs.
        holes: their holes by name, or one file for all.
        out: where `batch` writes too.
        compositing: how the hole's pixels meet the known ones, as for every other method.

    Raises:
        ResultsError: naming everything that is missing or does not fit; nothing is written then.
        BatchError: when the photographs and holes do not match each other.
    """
    manifest = read_manifest(results)
    pairs = pair_up(images, holes)
    found = {pair.stem: _find(results, manifest, pair.stem) for pair in pairs.pairs}
    problems = [f"{name}: this photograph has no hole" for name in pairs.without_hole]
    problems += [f"{results}: the result of {stem} is missing" for stem, path in found.items() if path is None]
    ready = [(pair, path) for pair in pairs.pairs if (path := found[pair.stem]) is not None]
    problems += [problem for pair, path in ready if (problem := _misfit(pair, path)) is not None]
    if problems:
        raise ResultsError(problems)
    for pair, path in ready:
        yield _write(manifest, pair, path, out / manifest.key, compositing)


def _wrong_values(values: Mapping[str, Any]) -> Iterator[str]:
    key = values.get("key", "x")
    if not isinstance(key, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key):
        yield f"the key {key!r} is not made of small letters, digits and single hyphens"
    elif key in METHODS:
        yield f"the key {key!r} is a method of the catalog; choose another, such as {key}-authors"
    for name in (*_TEXTS[1:], "name"):
        said = values.get(name, "{stem}")
        if not isinstance(said, str) or not said.strip():
            yield f"{name} is {said!r}, but a text is needed"
    name = str(values.get("name", "{stem}"))
    if "{stem}" not in name or "/" in name:
        yield f"name is {name!r}, but a file name with {{stem}} in it is needed"
    yield from _wrong_details(values)


def _wrong_details(values: Mapping[str, Any]) -> Iterator[str]:
    seed, weights, settings = values.get("seed", 0), values.get("weights", {}), values.get("settings", {})
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        yield f"seed is {seed!r}, but a whole number from 0 to {LARGEST_SEED} is needed"
    if not isinstance(weights, dict) or not all(isinstance(digest, str) for digest in weights.values()):
        yield f"weights is {weights!r}, but a table with every file's SHA-256 as a text is needed"
    if not isinstance(settings, dict) or not _is_json(settings):
        yield f"settings is {settings!r}, but a table is needed, with dates and times written as texts"


def _is_json(settings: object) -> bool:
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _find(results: Path, manifest: Manifest, stem: str) -> Path | None:
    names = [manifest.name.replace("{stem}", stem)] if manifest.name else [stem + suffix for suffix in SUFFIXES]
    return next((results / name for name in names if (results / name).is_file()), None)


def _misfit(pair: Pair, path: Path) -> str | None:
    """Why a result cannot be that of this photograph and hole, or None."""
    try:
        original, hole, result = _read(pair, path)
    except (ImageError, HoleError) as error:
        return f"{path}: {str(error).removesuffix('.')}"
    if result.shape != original.shape:
        return (
            f"{path} is {result.shape[1]}x{result.shape[0]} but {pair.image.name} is "
            f"{original.shape[1]}x{original.shape[0]}"
        )
    apart = float(np.abs(result[~hole].astype(np.int16) - original[~hole]).mean())
    if apart > FARTHEST_KNOWN:
        return (
            f"{path} differs from {pair.image.name} by {apart:.0f} levels on average where nothing was missing, so it "
            "is another picture, shifted or flipped"
        )
    return None


def _read(pair: Pair, path: Path) -> tuple[RgbImage, Hole, RgbImage]:
    original = read_image(pair.image).pixels
    hole = read_hole(pair.hole, (original.shape[0], original.shape[1]))
    if not hole.any() or hole.all():
        raise HoleError(f"The hole {pair.hole.name} is empty or everything.")
    return original, hole, read_image(path).pixels


def _write(manifest: Manifest, pair: Pair, path: Path, folder: Path, compositing: Compositing) -> Imported:
    original, hole, result = _read(pair, path)
    before = changed_outside(original, result, hole)
    image = exact(original, result, hole) if compositing == "exact" else seamless(original, result, hole)
    record = RunRecord(
        method=manifest.key,
        seed=manifest.seed,
        settings={
            **manifest.settings,
            "imported": {
                "title": manifest.title,
                "citation": manifest.citation,
                "licence": manifest.licence,
                "made_with": manifest.made_with,
                "file": path.name,
                "changed_outside_before": before,
            },
        },
        framing={},
        compositing=compositing,
        image_sha256=pixel_sha256(original),
        hole_sha256=hole_sha256(hole),
        result_sha256=pixel_sha256(image),
        width=image.shape[1],
        height=image.shape[0],
        weights=manifest.weights,
        versions={"asuka-app": APP_VERSION},
        seconds=0.0,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    ).to_json()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{pair.stem}.png"
    # The record comes last: without it the PNG does not count.
    write_atomically(target, encode_png(image, text={PNG_TEXT_KEY: record}))
    write_atomically(record_path(target), record.encode())
    return Imported(pair.stem, before)
