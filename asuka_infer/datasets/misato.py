"""An evaluation set of one's own, made as MISATO was (paper section 4): few images that stand for many.

Features of every picture of a domain, bisecting k-means into k clusters, of each cluster the picture nearest to its
centre; centre crop, scaled to one size; a seeded hole each, clear of the foreground where a segmentation is given.
Features are kept by content, so that a run that was killed goes on where it was.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import BisectingKMeans

from asuka_infer.datasets.hole_sets import HoleSet, draw_hole
from asuka_infer.datasets.layouts import Photograph, read_layout
from asuka_infer.holes import encode_hole_png, hole_sha256, resize
from asuka_infer.images import encode_png, open_checked, pixel_sha256, read_image, write_atomically
from asuka_infer.metrics.instruments import Instrument, embed
from asuka_infer.metrics.store import Store
from asuka_infer.request import Hole, RgbImage

MANIFEST = "manifest.json"
"""Which picture became which image, with the hashes of all."""

STORE_FILE = ".features.sqlite"

AT_A_TIME = 16
"""Pictures whose features are made and kept together (our choice)."""

BATCH_SIDE = 512
"""Shorter side, in pixels, that a picture is brought to before the network sees it: photographs of 50 megapixels would
otherwise be carried whole through networks that look at 224 to 299 px (our choice)."""


_Level = TypeVar("_Level", np.uint8, np.bool_)


class MisatoError(ValueError):
    """Domains that no set can be made of; the message says what to change."""


@dataclass(frozen=True)
class Domain:
    """Pictures of one kind.

    Attributes:
        name: of the domain.
        folder: pictures.
        segmentation: folder of PNG files named as the pictures, foreground not black, or None.
    """

    name: str
    folder: Path
    segmentation: Path | None = None


def parse_domain(words: str) -> Domain:
    """NAME=DIR or NAME=DIR:SEGMENTATION.

    Raises:
        MisatoError: for anything else.
    """
    name, equals, folders = words.partition("=")
    folder, _, segmentation = folders.partition(":")
    if not (name and equals and folder):
        raise MisatoError(f"{words!r} is no domain; say NAME=DIR or NAME=DIR:SEGMENTATION.")
    return Domain(name, Path(folder), Path(segmentation) if segmentation else None)


def build(
    domains: Sequence[Domain],
    out: Path,
    network: Instrument,
    *,
    clusters: int = 500,
    size: int = 512,
    seed: int = 0,
    device: str = "cpu",
    step: Callable[[int], object] = lambda _: None,
) -> int:
    """Write `out`/images/0000.png ..., holes/0000.png ..., domains.csv and the manifest; returns how many images.

    Args:
        domains: in the order of their numbers: each has `clusters` in a row.
        out: made when it is not there.
        network: gives the features.
        clusters: images per domain.
        size: side of the images in pixels.
        seed: of the clusters and the holes.
        device: of the network.
        step: hears every picture whose features are there.

    Raises:
        MisatoError: when a domain has fewer pictures than clusters, two have one name, or `out` holds another set.
        LayoutError: when a folder has no pictures.
    """
    if len({domain.name for domain in domains}) < len(domains):
        raise MisatoError("Two domains share a name; give each its own.")
    listed = {domain.name: read_layout("plain", domain.folder) for domain in domains}
    few = [f"{name} has {len(files)}" for name, files in listed.items() if len(files) < clusters]
    if few:
        raise MisatoError(f"{clusters} clusters need as many pictures, but {', '.join(few)}; ask for fewer clusters.")
    made = _made_with(network, clusters=clusters, size=size, seed=seed)
    _refuse_another(made, out)
    for folder in (out / "images", out / "holes"):
        folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with Store(out / STORE_FILE) as store:
        for domain in domains:
            features = _features(listed[domain.name], network, store, device=device, step=step)
            for chosen, members in medoids(features, clusters, seed):
                photograph = listed[domain.name][chosen]
                rows.append(_write_one(len(rows), domain, photograph, members, out, size=size, seed=seed))
    _write_manifest(rows, made, out)
    return len(rows)


def medoids(features: NDArray[np.float32], clusters: int, seed: int) -> list[tuple[int, int]]:
    """(row nearest to its cluster's centre, size of the cluster) for every cluster, by row.

    Args:
        features: (n, width).
        clusters: at most n.
        seed: of the k-means.
    """
    fitted = BisectingKMeans(n_clusters=clusters, random_state=seed).fit(features)
    labels = np.asarray(fitted.labels_)
    chosen: list[tuple[int, int]] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # The mean of the members is the centre; of equals the first in order counts, so that runs agree.
        apart = np.square(features[members] - features[members].mean(0)).sum(1)
        chosen.append((int(members[apart.argmin()]), len(members)))
    return sorted(chosen)


def centre_crop(picture: RgbImage, size: int) -> RgbImage:
    """The largest centred square, brought to (size, size, 3)."""
    square = _square(picture)
    how = cv2.INTER_AREA if len(square) >= size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (size, size), interpolation=how), np.uint8)


def crop_foreground(mask: Hole, size: int) -> Hole:
    """The same square of a mask; a pixel of the result is foreground as soon as any part of it is."""
    return resize(_square(mask), (size, size))


def _features(
    photographs: Sequence[Photograph],
    network: Instrument,
    store: Store,
    *,
    device: str,
    step: Callable[[int], object],
) -> NDArray[np.float32]:
    keys: list[str] = []
    for start in range(0, len(photographs), AT_A_TIME):
        some = photographs[start : start + AT_A_TIME]
        data = [one.file.read_bytes() for one in some]
        names = [hashlib.sha256(each).hexdigest() for each in data]
        missing = [place for place, key in enumerate(names) if not store.has("feature", key, network.identity)]
        pictures = [_shrunk(read_image(data[place]).pixels) for place in missing]
        vectors = embed(network, pictures, device) if pictures else []
        told = zip(missing, vectors, strict=True)
        store.keep([], [(names[place], network.identity, vector) for place, vector in told])
        keys += names
        step(len(some))
    return np.stack(list(store.vectors(keys, network.identity)))


def _shrunk(picture: RgbImage) -> RgbImage:
    shorter = min(picture.shape[:2])
    if shorter <= BATCH_SIDE:
        return picture
    scale = BATCH_SIDE / shorter
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _write_one(
    number: int, domain: Domain, photograph: Photograph, members: int, out: Path, *, size: int, seed: int
) -> dict[str, Any]:
    name = f"{number:04d}.png"
    picture = read_image(photograph.file)
    image = centre_crop(picture.pixels, size)
    foreground = _foreground(domain, photograph, picture.size)
    clear = None if foreground is None else crop_foreground(foreground, size)
    hole = draw_hole(HoleSet(seed=seed), name, (size, size), clear)
    write_atomically(out / "images" / name, encode_png(image))
    write_atomically(out / "holes" / name, encode_hole_png(hole))
    return {
        "file": name,
        "domain": domain.name,
        "source": photograph.file.relative_to(domain.folder).as_posix(),
        "source_sha256": hashlib.sha256(photograph.file.read_bytes()).hexdigest(),
        "stands_for": members,
        "image_sha256": pixel_sha256(image),
        "hole_sha256": hole_sha256(hole),
        "hole_share": round(float(hole.mean()), 4),
        "foreground": clear is not None,
    }


def _foreground(domain: Domain, photograph: Photograph, size: tuple[int, int]) -> Hole | None:
    if domain.segmentation is None:
        return None
    file = domain.segmentation / f"{photograph.key}.png"
    if not file.is_file():
        raise MisatoError(f"{photograph.file.name} has no segmentation {file}; give one for every picture.")
    with open_checked(file) as (image, _):
        # Of a palette the colours decide, else the levels, labels of 16 bits included.
        levels: NDArray[Any] = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    mask: Hole = np.asarray(np.atleast_3d(levels).astype(bool).any(axis=2))
    if mask.shape != size:
        raise MisatoError(f"{file} is {mask.shape[1]}x{mask.shape[0]} but its picture {size[1]}x{size[0]}.")
    return mask


def _square(picture: NDArray[_Level]) -> NDArray[_Level]:
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return picture[top : top + side, left : left + side]


def _made_with(network: Instrument, *, clusters: int, size: int, seed: int) -> dict[str, Any]:
    return {
        "features": network.name,
        "weights_sha256": network.digest,
        "clusters": clusters,
        "size": size,
        "seed": seed,
        "holes": asdict(HoleSet(seed=seed)),
    }


def _refuse_another(made: dict[str, Any], out: Path) -> None:
    manifest = out / MANIFEST
    if manifest.is_file() and (earlier := json.loads(manifest.read_text(encoding="utf-8"))["made_with"]) != made:
        raise MisatoError(f"{out} holds a set made with {earlier}, not {made}; write to another folder.")


def _write_manifest(rows: Sequence[dict[str, Any]], made: dict[str, Any], out: Path) -> None:
    lines = ["file,domain", *(f"{row['file']},{row['domain']}" for row in rows)]
    write_atomically(out / "domains.csv", ("\n".join(lines) + "\n").encode())
    text = json.dumps({"made_with": made, "images": rows}, indent=1, ensure_ascii=False) + "\n"
    write_atomically(out / MANIFEST, text.encode())
