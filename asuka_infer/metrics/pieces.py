"""Single results, measured wherever a worker is: bytes in, numbers and vectors out. Imports no more than that needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from asuka_infer.holes import HoleError, read_hole
from asuka_infer.images import ImageError, read_image
from asuka_infer.metrics.instruments import Instrument, Vector, Views, embed, score, view_of
from asuka_infer.metrics.pixels import MetricError


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
    """Some results that are measured together."""

    pieces: tuple[Piece, ...]
    device: str


@dataclass(eq=False)
class Answer:
    """What was measured: (content key, instrument identity, value); problems by result name."""

    scores: list[tuple[str, str, Mapping[str, float]]] = field(default_factory=list)
    features: list[tuple[str, str, Vector]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    done: int = 0


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
    seen: list[tuple[Piece, Views]] = []
    for piece in task.pieces:
        try:
            seen.append((piece, _decoded(piece)))
        except (PieceError, HoleError, ImageError) as error:
            answer.problems[piece.name] = str(error)
    _score_all(seen, task.device, answer)
    _embed_all(seen, task.device, answer)
    return answer


def _score_all(seen: Sequence[tuple[Piece, Views]], device: str, answer: Answer) -> None:
    for instrument in dict.fromkeys(each for piece, _ in seen for each in piece.scores):
        chosen = [(piece, views) for piece, views in seen if instrument in piece.scores]
        if instrument.kind == "pixels":
            for piece, views in chosen:
                try:
                    answer.scores.append((piece.key, instrument.identity, score(instrument, [views], device)[0]))
                except MetricError as error:
                    answer.problems[piece.name] = str(error)
            continue
        numbers = score(instrument, [views for _, views in chosen], device)
        answer.scores += [(piece.key, instrument.identity, n) for (piece, _), n in zip(chosen, numbers, strict=True)]


def _embed_all(seen: Sequence[tuple[Piece, Views]], device: str, answer: Answer) -> None:
    for instrument in dict.fromkeys(each for piece, _ in seen for each in (*piece.features, *piece.truth_features)):
        keys = [piece.key for piece, _ in seen if instrument in piece.features]
        pictures = [views.filled for piece, views in seen if instrument in piece.features]
        keys += [piece.truth_key for piece, _ in seen if instrument in piece.truth_features]
        pictures += [views.truth for piece, views in seen if instrument in piece.truth_features]
        vectors = embed(instrument, pictures, device)
        answer.features += [(key, instrument.identity, vector) for key, vector in zip(keys, vectors, strict=True)]


def _decoded(piece: Piece) -> Views:
    truth = read_image(piece.truth)
    hole = read_hole(piece.hole, truth.size)
    result = read_image(piece.result)
    if result.size != truth.size:
        raise PieceError(
            f"it is {result.size[1]}x{result.size[0]} but the photograph is {truth.size[1]}x{truth.size[0]}"
        )
    return view_of(result.pixels, truth.pixels, hole)
