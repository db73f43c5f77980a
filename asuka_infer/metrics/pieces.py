"""Single results, measured wherever a worker is: bytes in, numbers and vectors out. Imports no more than that needs.

Results of one photograph that come one after another share what is done with it: it is decoded once, and a network
looks at it once, however many methods filled its hole and however many metrics are made of what the network saw.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from asuka_infer.compositing import changed_outside, exact
from asuka_infer.holes import HoleError, read_hole
from asuka_infer.images import ImageError, read_image
from asuka_infer.metrics.instruments import OUTSIDE, PIXELS, Instrument, Vector, load_network
from asuka_infer.metrics.looks import Look, look_at
from asuka_infer.metrics.pixels import MetricError, pixel_scores
from asuka_infer.request import Hole, RgbImage


class PieceError(ValueError):
    """A result that does not belong to its photograph."""


@dataclass(frozen=True)
class Piece:
    """One result as bytes, with what is still to be measured of it."""

    name: str
    key: str
    truth_key: str
    result: bytes
    truth: bytes
    hole: bytes
    scores: tuple[Instrument, ...]
    features: tuple[Instrument, ...]
    truth_features: tuple[Instrument, ...]


@dataclass(frozen=True)
class Task:
    """Some results that are measured together; those of one photograph best follow one another."""

    pieces: tuple[Piece, ...]
    device: str


@dataclass(eq=False)
class Answer:
    """What was measured: (content key, instrument identity, value); problems by result name."""

    scores: list[tuple[str, str, Mapping[str, float]]] = field(default_factory=list)
    features: list[tuple[str, str, Vector]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    done: int = 0


@dataclass(frozen=True, eq=False)
class _Scene:
    """A photograph with its hole, the results in it, known pixels put back, and whose vector of itself is asked for."""

    truth: RgbImage
    hole: Hole
    filled: tuple[tuple[Piece, RgbImage], ...]
    key: str
    vectors: tuple[Instrument, ...]


@dataclass(frozen=True, eq=False)
class _Glance:
    """One picture that a network is to look at, and what is made of that.

    Attributes:
        picture: what is seen.
        key: of its content.
        vectors: whose vector of it is kept.
        compared: whose number it has beside the last truth; None for a truth.
    """

    picture: RgbImage
    key: str
    vectors: tuple[Instrument, ...] = ()
    compared: tuple[Instrument, ...] | None = None


def measure_task(task: Task) -> Answer:
    """Measure some results; those that cannot be are named in the answer."""
    threads = torch.get_num_threads()
    # How many threads share a sum may change its last bit; workers are the parallelism here.
    torch.set_num_threads(1)
    try:
        return _measure_pieces(task)
    finally:
        torch.set_num_threads(threads)


def _measure_pieces(task: Task) -> Answer:
    answer = Answer(done=len(task.pieces))
    photographs = groupby(task.pieces, key=lambda piece: (piece.truth_key, piece.hole))
    scenes = [scene for _, pieces in photographs if (scene := _scene(tuple(pieces), answer))]
    wanted = {each for piece in task.pieces for each in (*piece.scores, *piece.features, *piece.truth_features)}
    networks = {(each.network, each.files): each for each in wanted if each.network}
    # In the order of their names, so that answers do not depend on how a set is laid out.
    for _, network in sorted(networks.items()):
        _look(network, scenes, task.device, answer)
    return answer


def _scene(pieces: Sequence[Piece], answer: Answer) -> _Scene | None:
    """Decode a photograph and its results, and tell what their pixels say; None when the photograph is damaged."""
    first = pieces[0]
    try:
        truth = read_image(first.truth)
        hole = read_hole(first.hole, truth.size)
    except (HoleError, ImageError) as error:
        answer.problems |= {piece.name: str(error) for piece in pieces}
        return None
    filled: list[tuple[Piece, RgbImage]] = []
    for piece in pieces:
        try:
            result = _result(piece, truth.size)
            if PIXELS in piece.scores:
                outside = float(changed_outside(truth.pixels, result, hole))
                numbers = pixel_scores(result, truth.pixels, hole) | {OUTSIDE: outside}
                answer.scores.append((piece.key, PIXELS.identity, numbers))
        except (PieceError, ImageError, MetricError) as error:
            answer.problems[piece.name] = str(error)
            continue
        filled.append((piece, exact(truth.pixels, result, hole)))
    vectors = dict.fromkeys(one for piece in pieces for one in piece.truth_features)
    return _Scene(truth.pixels, hole, tuple(filled), first.truth_key, tuple(vectors))


def _result(piece: Piece, size: tuple[int, int]) -> RgbImage:
    result = read_image(piece.result)
    if result.size != size:
        raise PieceError(f"it is {result.size[1]}x{result.size[0]} but the photograph is {size[1]}x{size[0]}")
    return result.pixels


def _look(network: Instrument, scenes: Sequence[_Scene], device: str, answer: Answer) -> None:
    """Show a network every picture once and keep what its instruments make of it."""
    loaded = load_network(network, device)
    glances: list[_Glance] = []
    for scene in scenes:
        height, width = scene.hole.shape
        if min(height, width) < loaded.smallest:
            told = f"it is {width}x{height}, but {network.network} sees no less than {loaded.smallest} pixels a side"
            answer.problems |= {piece.name: told for piece, _ in scene.filled}
            continue
        glances += _glances(scene, network)
    truth = Look()
    for glance, seen in zip(glances, look_at(loaded, (each.picture for each in glances), device), strict=True):
        answer.features += [(glance.key, one.identity, seen.numbers()) for one in glance.vectors]
        if glance.compared is None:
            truth = seen
            continue
        for one in glance.compared:
            number = _cosine(seen, truth) if one.kind == "similarity" else float(loaded.between(seen.taps, truth.taps))
            answer.scores.append((glance.key, one.identity, {one.name: number}))


def _glances(scene: _Scene, network: Instrument) -> Iterator[_Glance]:
    """The truth before the results that are compared with it; holes alone are other pictures."""

    def of_network(instruments: Sequence[Instrument], *kinds: str) -> tuple[Instrument, ...]:
        same = [one for one in instruments if (one.network, one.files) == (network.network, network.files)]
        return tuple(one for one in same if one.kind in kinds)

    whole = [
        _Glance(filled, piece.key, of_network(piece.features, "features"), of_network(piece.scores, "distance"))
        for piece, filled in scene.filled
    ]
    whole = [glance for glance in whole if glance.vectors or glance.compared]
    vectors = of_network(scene.vectors, "features")
    if vectors or any(glance.compared for glance in whole):
        yield _Glance(scene.truth, scene.key, vectors)
    yield from whole
    alone = [
        _Glance(_hole_alone(filled, scene.hole), piece.key, compared=similar)
        for piece, filled in scene.filled
        if (similar := of_network(piece.scores, "similarity"))
    ]
    if alone:
        yield _Glance(_hole_alone(scene.truth, scene.hole), "")
        yield from alone


def _hole_alone(picture: RgbImage, hole: Hole) -> RgbImage:
    return np.where(hole[..., None], picture, np.uint8(0))


def _cosine(one: Look, other: Look) -> float:
    a, b = one.numbers(), other.numbers()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
