"""Object shapes from COCO's annotations or from PNG masks, packed as the training holes are made of them."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from training.masks import Hole, MaskError

SIZE = 256
"""Side of a packed silhouette: holes of 512 px show no steps that growing and scaling would not hide."""

MOST = 10_000
"""Silhouettes kept unless another number is asked for: 82 MB in memory, each placed, scaled and flipped anew."""

LEAST_SHARE = 0.01
"""Smaller ones, as a share of the picture, are specks nobody removes (our choice)."""

SEED = 0
"""Names which silhouettes are kept where there are more than asked for."""


QUIET_BELOW = 256
"""Fewer pictures than this are done before a progress bar is read."""


class Silhouette(NamedTuple):
    """One object: the picture it is from, its category, and its shape letterboxed into a square."""

    image: str
    category: str
    shape: Hole


def pack_silhouettes(shapes: Iterator[Silhouette], out: Path, *, most: int = MOST, seed: int = SEED) -> int:
    """Write `out` (npz with `packed`) and a CSV of the same name, as `read_silhouettes` takes them; returns how many.

    Of more than `most` a random choice is kept, the same for the same seed (reservoir sampling: Vitter, 1985).

    Raises:
        MaskError: when there are none.
    """
    rng = np.random.default_rng(seed)
    kept: list[tuple[int, Silhouette]] = []
    for number, shape in enumerate(shapes):
        packed = shape._replace(shape=np.packbits(shape.shape))
        if len(kept) < most:
            kept.append((number, packed))
        elif (place := int(rng.integers(number + 1))) < most:
            kept[place] = (number, packed)
    if not kept:
        raise MaskError(f"No silhouette is as large as {LEAST_SHARE:.0%} of its picture; give other annotations.")
    rows = [shape for _, shape in sorted(kept, key=lambda one: one[0])]
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, packed=np.stack([row.shape for row in rows]))
    with out.with_suffix(".csv").open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["row", "image", "category"])
        writer.writerows((number, row.image, row.category) for number, row in enumerate(rows))
    return len(rows)


def from_coco(annotations: Path, *, size: int = SIZE, least_share: float = LEAST_SHARE) -> Iterator[Silhouette]:
    """Every object of an `instances_*.json`; crowds, which are many objects, are left out.

    Raises:
        MaskError: when the file is no COCO instances file.
    """
    told: Mapping[str, Any] = json.loads(annotations.read_text(encoding="utf-8"))
    if not {"images", "annotations", "categories"} <= told.keys():
        raise MaskError(f"{annotations} has {sorted(told)}; COCO's instances files have images and annotations.")
    pictures = {one["id"]: one for one in told["images"]}
    names = {one["id"]: one["name"] for one in told["categories"]}
    for one in tqdm(told["annotations"], desc="silhouettes", mininterval=2.0, disable=len(pictures) < QUIET_BELOW):
        picture = pictures[one["image_id"]]
        height, width = picture["height"], picture["width"]
        if one.get("iscrowd") or one["area"] < least_share * height * width:
            continue
        shape = _from_segmentation(one["segmentation"], height, width, size)
        if shape.any():
            yield Silhouette(picture["file_name"], names[one["category_id"]], shape)


def from_masks(folder: Path, *, size: int = SIZE, least_share: float = LEAST_SHARE) -> Iterator[Silhouette]:
    """One object per PNG of a folder: everything that is not black. A first folder below it names the category.

    Raises:
        MaskError: when there is no PNG.
    """
    files = sorted(folder.rglob("*.png"))
    if not files:
        raise MaskError(f"There is no PNG in {folder}; give a folder of masks, white = object.")
    for file in files:
        inside = file.relative_to(folder)
        with Image.open(file) as picture:
            mask = np.asarray(picture.convert("L")) > 0
        if mask.mean() >= least_share:
            category = inside.parts[0] if len(inside.parts) > 1 else "object"
            yield Silhouette(inside.as_posix(), category, _letterboxed(mask, size))


def runs_of(encoded: str) -> list[int]:
    """The run lengths of COCO's compressed string: five bits a character, differences to the run before the last."""
    counts: list[int] = []
    at = 0
    while at < len(encoded):
        value, shift, more = 0, 0, True
        while more:
            code = ord(encoded[at]) - 48
            value |= (code & 0x1F) << shift
            more, shift, at = bool(code & 0x20), shift + 5, at + 1
            if not more and code & 0x10:
                value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)  # noqa: PLR2004 - COCO's format
    return counts


def mask_of_runs(counts: Sequence[int], height: int, width: int) -> Hole:
    """COCO's uncompressed runs, first of background, column by column."""
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    if len(flat) != height * width:
        raise MaskError(f"Runs of {len(flat)} px do not fill a picture of {width}x{height}; the annotation is damaged.")
    return flat.reshape(width, height).T


def _from_segmentation(segmentation: Any, height: int, width: int, size: int) -> Hole:
    if isinstance(segmentation, Mapping):
        counts: Any = segmentation["counts"]
        runs = runs_of(counts) if isinstance(counts, str) else counts
        return _letterboxed(mask_of_runs(runs, height, width), size)
    scale = size / max(height, width)
    canvas = Image.new("1", (size, size))
    pen = ImageDraw.Draw(canvas)
    for polygon in segmentation:
        pen.polygon([value * scale for value in polygon], fill=1)
    return np.asarray(canvas)


def _letterboxed(mask: NDArray[np.bool_], size: int) -> Hole:
    scale = size / max(mask.shape)
    height, width = (max(1, round(side * scale)) for side in mask.shape)
    small = cv2.resize(mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_AREA)
    square = np.zeros((size, size), dtype=bool)
    square[:height, :width] = small > 127  # noqa: PLR2004 - half of 255
    return square
