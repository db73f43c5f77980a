"""Tables of methods by metric: means with bootstrap intervals, per domain, the best and second best marked.

Every metric comes down to numbers per picture (those of whole sets to pseudo-values whose mean is the metric), so one
bootstrap over pictures serves all, and every method is resampled alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asuka_infer.metrics.distributions import ids_verdicts_of_features, kernel_distance_seen
from asuka_infer.metrics.frechet import frechet_distance_of_features
from asuka_infer.metrics.pixels import MetricError

Floats = NDArray[np.float64]
Better = Literal["higher", "lower"]

RESAMPLES = 1000
"""Of the bootstrap: the ends of a 95 % interval are settled to about a seventh of its half width."""

SEED = 7
"""Of the bootstrap."""

INTERVAL = (2.5, 97.5)
"""Percentiles that are told."""

AT_A_TIME = 50
"""Resamples whose weights are in memory together: 15 MB at 36,500 pictures."""

FEWEST_PICTURES = 100
"""Below it FID, KID, U-IDS and P-IDS are not told: the standard error of a share near one half is above 5 points."""

ALL = "all"
"""Name of the group of all pictures."""


@dataclass(frozen=True)
class Measure:
    """How a metric is shown.

    Attributes:
        title: of its column.
        unit: or empty.
        better: which end is better.
        digits: after the point.
    """

    title: str
    unit: str
    better: Better
    digits: int


MEASURES: Mapping[str, Measure] = {
    "lpips": Measure("LPIPS (Alex)", "", "lower", 4),
    "perceptual-squeezenet": Measure("Perceptual (SqueezeNet, no learned weights)", "", "lower", 4),
    "clip-similarity-hole": Measure("CLIP similarity, hole", "", "higher", 4),
    "psnr": Measure("PSNR", "dB", "higher", 3),
    "psnr-hole": Measure("PSNR, hole", "dB", "higher", 3),
    "ssim": Measure("SSIM", "", "higher", 4),
    "ssim-hole": Measure("SSIM, hole", "", "higher", 4),
    "l1": Measure("L1", "%", "lower", 3),
    "l1-hole": Measure("L1, hole", "%", "lower", 3),
    "l2": Measure("L2", "%", "lower", 3),
    "l2-hole": Measure("L2, hole", "%", "lower", 3),
    "bpe": Measure("BPE", "%", "lower", 3),
    "gradient": Measure("Gradient error", "levels", "lower", 2),
    "colour-step": Measure("Colour step", "levels", "lower", 2),
    "changed-outside": Measure("Changed outside", "px", "lower", 1),
}
"""Metrics of single pictures, in the order of the columns."""

_FEATURE_TITLES: Mapping[str, str] = {
    "inception-tf": "Inception, TF",
    "inception-torchvision": "Inception, torchvision",
    "squeezenet": "SqueezeNet",
    "clip": "CLIP",
}


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    Attributes:
        value: None where it cannot be told.
        low, high: 95 % interval over pictures.
        place: 1 for the best of its group and metric, 2 for the second, else 0. Equal printed numbers share a place.
        note: why there is no number, or what it depends on (N, PCA dimension).
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    place: int = 0
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One method in one group of pictures.

    Attributes:
        group: `ALL` or a domain.
        method: its key.
        pictures: how many were compared.
        cells: by metric.
    """

    group: str
    method: str
    pictures: int
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Scoreboard:
    """All rows.

    Attributes:
        metrics: by name, in the order of the columns.
        rows: groups in order, methods within.
        notes: sentences that belong under the table.
    """

    metrics: Mapping[str, Measure]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Collected:
    """What was measured of one method, rows in the order of the pictures.

    Attributes:
        scores: (n,) by metric.
        features: (n, width) by feature network.
    """

    scores: Mapping[str, Floats]
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])


@dataclass(frozen=True, eq=False)
class _Seen:
    """A metric's value and its per-picture values whose spread is its own."""

    value: float | None
    each: Floats | None = None
    note: str = ""


def set_measures(network: str) -> dict[str, Measure]:
    """The metrics of whole sets on one network's features; bare "fid" and "kid" are the standard network's."""
    title = _FEATURE_TITLES[network]
    tail = "" if network == "inception-tf" else f"-{network}"
    return {
        f"fid{tail}": Measure(f"FID ({title})", "", "lower", 3),
        f"kid{tail}": Measure(f"KID ({title})", "x1000", "lower", 3),
        f"u-ids-{network}": Measure(f"U-IDS ({title})", "", "higher", 3),
        f"p-ids-{network}": Measure(f"P-IDS ({title})", "", "higher", 3),
    }


def build_scoreboard(
    collected: Mapping[str, Collected],
    truths: Mapping[str, NDArray[np.float32]],
    domains: Sequence[str],
    *,
    components: int | None = None,
    notes: Sequence[str] = (),
) -> Scoreboard:
    """The table of all methods.

    Args:
        collected: by method.
        truths: (n, width) features of the truths by network.
        domains: of each picture; "" for none.
        components: principal components for U-IDS and P-IDS; None: a quarter of the pictures, at most 64.
        notes: sentences that go under the table.
    """
    names = np.array(domains)
    groups = {ALL: np.arange(len(names))}
    if len(set(domains) - {""}) > 1:
        groups |= {name: np.flatnonzero(names == name) for name in dict.fromkeys(domains) if name}
    first = next(iter(collected.values()))
    metrics = {name: measure for name, measure in MEASURES.items() if name in first.scores}
    metrics |= {name: measure for network in truths for name, measure in set_measures(network).items()}
    rows: list[Row] = []
    for group, places in groups.items():
        seen = {
            method: _see(one, truths, places, components=components, complete=len(places) == len(names))
            for method, one in collected.items()
        }
        rows += _rows(group, len(places), seen, metrics)
    return Scoreboard(metrics, tuple(rows), tuple(notes))


def resampled_means(values: Floats, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """(resamples, columns): means of (n, columns) over n pictures drawn with replacement."""
    count = len(values)
    rng = np.random.default_rng(seed)
    chance = np.full(count, 1 / count)
    told: list[Floats] = []
    for start in range(0, resamples, AT_A_TIME):
        weights = rng.multinomial(count, chance, size=min(AT_A_TIME, resamples - start))
        told.append(weights @ values / count)
    return np.concatenate(told)


def _see(
    one: Collected,
    truths: Mapping[str, NDArray[np.float32]],
    places: NDArray[np.intp],
    *,
    components: int | None,
    complete: bool,
) -> dict[str, _Seen]:
    seen = {name: _Seen(float(each[places].mean()), each[places]) for name, each in one.scores.items()}
    for network, real in truths.items():
        # The whole set stays where it lies on disk; a domain is a copy.
        pair = (one.features[network], real) if complete else (one.features[network][places], real[places])
        seen |= dict(zip(set_measures(network), _of_sets(*pair, components), strict=True))
    return seen


def _of_sets(
    results: NDArray[np.float32], truths: NDArray[np.float32], components: int | None
) -> tuple[_Seen, _Seen, _Seen, _Seen]:
    """FID, KID, U-IDS, P-IDS; without a number where there are too few pictures or nothing can be computed."""
    count, width = results.shape
    if count < FEWEST_PICTURES:
        missing = _Seen(None, note=f"needs {FEWEST_PICTURES} images, there are {count}")
        return missing, missing, missing, missing
    frechet, kernel = frechet_distance_of_features(results, truths), kernel_distance_seen(results, truths)
    few = f"N={count} is not above {width} features: biased upwards, compare at the same N only"
    first = _Seen(frechet.value, frechet.pseudo, few if count <= width else "")
    second = _Seen(_PER_MILLE * kernel.value, _PER_MILLE * kernel.pseudo)
    try:
        verdicts = ids_verdicts_of_features(results, truths, components=components)
    except MetricError as error:
        return first, second, _Seen(None, note=str(error)), _Seen(None, note=str(error))
    said = f"N={count}, PCA {verdicts.components}"
    unpaired, paired = (_Seen(float(each.mean()), each, said) for each in (verdicts.mistaken, verdicts.fooled))
    return first, second, unpaired, paired


_PER_MILLE = 1000


def _rows(
    group: str, pictures: int, seen: Mapping[str, Mapping[str, _Seen]], metrics: Mapping[str, Measure]
) -> list[Row]:
    told = [(method, name) for method, by_name in seen.items() for name in metrics if by_name[name].each is not None]
    columns = [each for method, name in told if (each := seen[method][name].each) is not None]
    ends = dict[tuple[str, str], tuple[float, float]]()
    if columns and pictures > 1:
        low, high = np.percentile(resampled_means(np.column_stack(columns)), INTERVAL, axis=0)
        ends = {place: (float(a), float(b)) for place, a, b in zip(told, low, high, strict=True)}
    places = {name: _places(name, measure, seen) for name, measure in metrics.items()}
    return [
        Row(
            group,
            method,
            pictures,
            {
                name: Cell(
                    by_name[name].value,
                    *ends.get((method, name), (None, None)),
                    place=places[name].get(method, 0),
                    note=by_name[name].note,
                )
                for name in metrics
            },
        )
        for method, by_name in seen.items()
    ]


def _places(name: str, measure: Measure, seen: Mapping[str, Mapping[str, _Seen]]) -> dict[str, int]:
    """1 and 2 for the methods with the best and the second best printed number; nothing where all are alike."""
    printed = {
        method: round(value, measure.digits) for method, each in seen.items() if (value := each[name].value) is not None
    }
    order = sorted(set(printed.values()), reverse=measure.better == "higher")
    if len(order) < 2:  # noqa: PLR2004 - with one number there is nothing to be better than
        return {}
    return {method: order.index(value) + 1 for method, value in printed.items() if value in order[:2]}
