"""The table: how well methods fill holes in photographs nobody trained on, with paired intervals, and a sheet.

Results are kept as PNG files, so that a table that was interrupted goes on where it stopped.
"""

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from asuka_infer.asuka import embedded
from asuka_infer.asuka.embedded_files import prompt_of
from asuka_infer.asuka.mini import load_mini
from asuka_infer.catalog import find_method
from asuka_infer.holes import read_hole, resize
from asuka_infer.images import encode_png, read_image, write_atomically
from asuka_infer.inpainter import Inpainter
from asuka_infer.metrics.distributions import (
    IdsScores,
    ids_scores_of_features,
    in_units_of,
    kernel_distance_of_features,
    perceptual_distance,
)
from asuka_infer.metrics.features import SqueezeNet, pooled_features
from asuka_infer.metrics.pixels import Scores, colour_step, composited, hole_l1, hole_psnr, psnr, ssim
from asuka_infer.request import Hole, InpaintRequest, RgbImage
from asuka_infer.settings import parse_changes
from training.masks import Silhouettes, numbered_hole

HOLE_SEED = 100
"""Names the holes added to the given ones; training holes have another."""

RESAMPLES = 2000
"""Of the bootstrap: the ends of a 95 % interval are then settled to about a tenth of its width."""

BOOTSTRAP_SEED = 7

SHEET_PHOTOGRAPHS = 24

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap that are told."""

CPU_SECONDS = "cpu_seconds"
"""Name of the text in a result's PNG that says what it cost."""

EMBEDDED: Mapping[str, Callable[..., Inpainter]] = {
    "asuka-mini": embedded.asuka_mini,
    "sd-mini": embedded.sd_mini,
    "sd-mini-repaint": embedded.sd_mini_repaint,
    "mae-mini": embedded.mae_mini,
}
"""Family members, which may be measured with weights that are not committed."""

PROMPTED = "sd-mini-prompt"
"""The one that needs tokens beside the weights, learned for their UNet."""

PER_PICTURE: Mapping[str, Callable[[Sequence[RgbImage], Sequence[RgbImage], Sequence[Hole]], Scores]] = {
    "hole_l1": hole_l1,
    "psnr": psnr,
    "hole_psnr": hole_psnr,
    "ssim": ssim,
    "colour_step": colour_step,
}


class MeasureError(ValueError):
    """There is nothing to measure; the message says why."""


@dataclass(frozen=True, eq=False)
class Case:
    """One photograph with one hole.

    Attributes:
        photograph: its name; cases of one photograph are resampled together.
        number: 0 for the given hole, 1.. for the drawn ones.
        truth: the photograph.
        hole: what is to be filled.
    """

    photograph: str
    number: int
    truth: RgbImage
    hole: Hole


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of one method.

    Attributes:
        scores: per case, by name.
        features: (cases, width) of the composited results.
        cpu_seconds: per case.
    """

    scores: Mapping[str, Scores]
    features: NDArray[np.float64]
    cpu_seconds: Scores


def read_cases(
    folder: Path, silhouettes: Silhouettes, *, size: int, holes: int, photographs: int | None = None
) -> list[Case]:
    """Photographs of `folder/images` at `size` px with their hole of `folder/masks` and `holes - 1` drawn ones.

    Raises:
        MeasureError: when a photograph has no hole, or there are none.
    """
    files = sorted((folder / "images").glob("*"))[:: _stride(folder, photographs)]
    if not files:
        raise MeasureError(f"There are no photographs in {folder / 'images'}.")
    cases: list[Case] = []
    for index, file in enumerate(files):
        given = folder / "masks" / f"{file.stem}.png"
        if not given.is_file():
            raise MeasureError(f"{file.name} has no hole {given}; every photograph needs one of its name.")
        truth = cv2.resize(read_image(file).pixels, (size, size), interpolation=cv2.INTER_AREA)
        first = resize(read_hole(given), (size, size))
        drawn = [
            numbered_hole(index * holes + number, seed=HOLE_SEED, silhouettes=silhouettes, size=size)
            for number in range(1, holes)
        ]
        pictures = np.asarray(truth, dtype=np.uint8)
        cases += [Case(file.stem, number, pictures, hole) for number, hole in enumerate([first, *drawn])]
    return cases


def fill_all(key: str, cases: Sequence[Case], out: Path, *, weights: Path | None = None) -> list[Path]:
    """Run a method on every case that has no result yet; returns the files, in the order of the cases."""
    return fill_with(key, partial(_load, key, weights), cases, out)


def fill_with(name: str, load: Callable[[], Inpainter], cases: Sequence[Case], out: Path) -> list[Path]:
    """`fill_all` with any method, under any name; it is loaded where a result is missing and not before."""
    files = [out / "results" / name / f"{case.photograph}_{case.number}.png" for case in cases]
    missing = [(case, file) for case, file in zip(cases, files, strict=True) if not file.is_file()]
    if missing:
        method = load()
        files[0].parent.mkdir(parents=True, exist_ok=True)
        for case, file in tqdm(missing, desc=name, mininterval=2.0):
            begun = time.process_time()
            result = method(InpaintRequest(case.truth, case.hole, case.number)).image
            spent = time.process_time() - begun
            write_atomically(file, encode_png(result, text={CPU_SECONDS: f"{spent:.3f}"}))
    return files


def measure(cases: Sequence[Case], files: Sequence[Path], network: SqueezeNet) -> Measured:
    """All numbers of one method's results."""
    results, seconds = [read_image(file).pixels for file in files], [_seconds(file) for file in files]
    truths, holes = [case.truth for case in cases], [case.hole for case in cases]
    scores = {name: number(results, truths, holes) for name, number in PER_PICTURE.items()}
    scores["perceptual"] = perceptual_distance(results, truths, holes, network=network)
    features = pooled_features(composited(results, truths, holes), network)
    return Measured(scores, features, np.array(seconds))


def write_table(
    measured: Mapping[str, Measured], truths: NDArray[np.float64], photographs: Sequence[str], out: Path
) -> list[str]:
    """Write `out/table.csv`, one row per method, and `out/differences.csv`, every method against the first.

    Args:
        measured: by method; the first is the one that the others are compared with.
        truths: features of the truths, one row per case.
        photographs: of each case; whole photographs are resampled.
        out: the folder.

    Returns:
        The table as lines to print.
    """
    weights = bootstrap_weights(photographs)
    rows: list[dict[str, str]] = []
    for key, one in measured.items():
        ids = ids_scores_of_features(one.features, truths)
        row = {name: f"{values.mean():.4f}" for name, values in one.scores.items()}
        kernel = kernel_distance_of_features(one.features, truths)
        rows.append({"method": key, **row, "kernel": f"{kernel:.4f}", **_ids_row(ids), **_cost_row(one)})
    _write_csv(out / "table.csv", rows)
    first, *others = measured
    differences = [
        {"method": first, "against": other, **_differences(measured[first], measured[other], truths, weights)}
        for other in others
    ]
    _write_csv(out / "differences.csv", differences)
    lines = [" ".join(f"{name:>12}" for name in rows[0]), *(" ".join(f"{v:>12}" for v in r.values()) for r in rows)]
    told = (" ".join(f"{name} {value}" for name, value in row.items()) for row in differences)
    return [*lines, *told]


def bootstrap_weights(photographs: Sequence[str], resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """(resamples, cases): how often each case is in each resample; cases of one photograph always go together."""
    names, owner = np.unique(np.array(photographs), return_inverse=True)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return drawn[:, owner].astype(np.float64)


def weighted_kernel_distance(
    results: NDArray[np.float64], truths: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`kernel_distance_of_features` of every resample; a case is never paired with its own copy within a set."""
    results, truths = in_units_of(results, truths)
    width = results.shape[1]
    within = [(one @ one.T / width + 1) ** 3 for one in (results, truths)]
    for kernel in within:
        np.fill_diagonal(kernel, 0)
    across = (results @ truths.T / width + 1) ** 3
    square = weights.sum(1) ** 2
    apart = square - np.square(weights).sum(1)
    like = sum((np.einsum("ri,ri->r", weights @ kernel, weights) for kernel in within), start=np.zeros(len(weights)))
    return like / apart - 2 * np.einsum("ri,ri->r", weights @ across, weights) / square


def write_sheet(cases: Sequence[Case], columns: Mapping[str, Sequence[Path]], out: Path) -> Path:
    """`out/sheet.webp`: hole, each method, truth, for the given hole of up to 24 photographs; returns the file."""
    chosen = [index for index, case in enumerate(cases) if case.number == 0]
    chosen = chosen[:: max(1, len(chosen) // SHEET_PHOTOGRAPHS)][:SHEET_PHOTOGRAPHS]
    rows: list[RgbImage] = []
    for index in chosen:
        case = cases[index]
        shown = np.where(case.hole[..., None], np.uint8(127), case.truth)
        fills = [read_image(files[index]).pixels for files in columns.values()]
        rows.append(np.concatenate([shown, *fills, case.truth], axis=1))
    half = (len(rows) + 1) // 2
    blank = np.full_like(rows[0], 255)
    pairs = [np.concatenate([a, b], axis=1) for a, b in zip(rows[:half], [*rows[half:], blank], strict=False)]
    Image.fromarray(np.concatenate(pairs)).save(out / "sheet.webp", quality=85)
    return out / "sheet.webp"


def _stride(folder: Path, photographs: int | None) -> int:
    """Every how manyeth photograph is taken, so that a few are of all kinds."""
    total = len(list((folder / "images").glob("*")))
    return max(1, total // photographs) if photographs else 1


def _load(asked: str, weights: Path | None) -> Inpainter:
    """A method as the command names it: its key, then any settings, as in `asuka-mini:texture=0`."""
    key, *changes = asked.split(":")
    method = _load_method(key, weights)
    return method.with_settings(**parse_changes(method.settings, changes)) if changes else method


def _load_method(key: str, weights: Path | None) -> Inpainter:
    if weights is not None and key in EMBEDDED:
        return EMBEDDED[key](load_mini(weights))
    if weights is not None and key == PROMPTED:
        tokens = prompt_of(weights)
        if tokens is None:
            raise MeasureError(f"{weights} has no tokens for its UNet; learn them with `python -m training prompt`.")
        return embedded.sd_mini_prompt(load_mini(weights), tokens)
    return find_method(key).load()


def _seconds(file: Path) -> float:
    with Image.open(file) as picture:
        return float(picture.info[CPU_SECONDS])


def _ids_row(ids: IdsScores) -> dict[str, str]:
    return {
        "u_ids": f"{ids.unpaired:.3f}",
        "p_ids": f"{ids.paired:.3f}",
        "n": str(ids.pictures),
        "pca": str(ids.components),
    }


def _cost_row(one: Measured) -> dict[str, str]:
    return {"cpu_s": f"{np.median(one.cpu_seconds):.2f}"}


def _differences(
    one: Measured, other: Measured, truths: NDArray[np.float64], weights: NDArray[np.float64]
) -> dict[str, str]:
    gaps = {name: one.scores[name] - other.scores[name] for name in one.scores}
    told = {name: _interval(partial(_weighted_mean, gap), weights) for name, gap in gaps.items()}

    def kernel(resamples: NDArray[np.float64]) -> NDArray[np.float64]:
        return weighted_kernel_distance(one.features, truths, resamples) - weighted_kernel_distance(
            other.features, truths, resamples
        )

    return {**told, "kernel": _interval(kernel, weights)}


def _weighted_mean(values: Scores, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return weights @ values / weights.sum(1)


def _interval(number: Callable[[NDArray[np.float64]], NDArray[np.float64]], weights: NDArray[np.float64]) -> str:
    point = float(number(np.ones((1, weights.shape[1])))[0])
    low, high = np.percentile(number(weights), INTERVAL)
    return f"{point:+.4f} [{low:+.4f}, {high:+.4f}]"


def _write_csv(file: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, fieldnames=list(rows[0]) if rows else ["method"])
        writer.writeheader()
        writer.writerows(rows)
