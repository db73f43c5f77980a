"""Which question a participant gets next: a pure function over counts, balanced just in time.

Cells form a grid (image, pair, side): for pairwise studies `pair` counts the compared pairs and `side` says which of
the two stands left; for best-of-n there is one "pair" (all methods) and `side` counts the rows of a Williams square.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ALGORITHM = "jit-1"
"""Recorded with every trial; raised when the rule below changes."""

Counts = NDArray[np.int64]
"""(images, pairs, sides): how many answers a cell has or is about to get."""

OpenCells = NDArray[np.bool_]
"""(images, pairs, sides): True where another answer is wanted."""


class Place(NamedTuple):
    """A cell by its place in the grid."""

    image: int
    pair: int
    side: int


@dataclass(frozen=True)
class Assigned:
    """The next question.

    Attributes:
        place: the cell to ask.
        propensity: the probability with which it was drawn among equally good ones, in (0, 1].
    """

    place: Place
    propensity: float


class AssignmentError(ValueError):
    """A plan that no participant could complete."""


def next_cell(
    counts: Counts,
    taken: Sequence[Place],
    *,
    trials: int,
    key: bytes,
    also_seen: Sequence[int] = (),
    only: OpenCells | None = None,
) -> Assigned | None:
    """The least filled cell that this person may still be asked.

    A person sees an image once. Over a whole session every pair is asked `trials // pairs` times, or once more, and
    every side likewise, so the quotas are exact when the numbers divide. Among the admissible cells those win whose
    (image, pair) has the fewest answers, then the cell itself, then the pair this person has most left of; what is
    still equal is drawn by an HMAC of the step. The same pair twice running is avoided where something else is left.

    Args:
        counts: answers that are valid or under way, per cell.
        taken: this person's cells so far, oldest first.
        trials: trials of a whole session.
        key: secret to this session; the same key and counts give the same cell.
        also_seen: images of trials that were taken back; they count for no quota but are not shown again.
        only: in a draining study, the cells still wanted; quotas then no longer bind, only images seen do.

    Returns:
        None when nothing admissible is left.
    """
    if len(taken) >= trials:
        return None
    images, pairs, sides = counts.shape
    pair_used = np.bincount([place.pair for place in taken], minlength=pairs)
    side_used = np.bincount([place.side for place in taken], minlength=sides)
    unseen = np.ones(images, dtype=np.bool_)
    unseen[[*(place.image for place in taken), *also_seen]] = False
    admissible = np.broadcast_to(unseen[:, None, None], counts.shape)
    if only is None:
        may_pair, may_side = _within_quota(pair_used, trials), _within_quota(side_used, trials)
        admissible = admissible & may_pair[:, None] & may_side[None, :]
    else:
        admissible = admissible & only
    if taken and pairs > 1:
        fresh = admissible & (np.arange(pairs) != taken[-1].pair)[:, None]
        admissible = fresh if fresh.any() else admissible
    best = _least_filled(counts, admissible, pair_used)
    if not len(best):
        return None
    image, pair, side = np.unravel_index(_draw(best, key, len(taken)), counts.shape)
    return Assigned(Place(int(image), int(pair), int(side)), propensity=1 / len(best))


def refuse_impossible_plan(*, images: int, trials: int) -> None:
    """Raise when a person would have to see an image twice.

    Raises:
        AssignmentError: naming both numbers.
    """
    if trials > images:
        raise AssignmentError(
            f"Each participant is asked {trials} trials but there are {images} images, and nobody sees an image twice; "
            f"lower plan.real to {images} or add images."
        )


def williams_square(n: int) -> tuple[tuple[int, ...], ...]:
    """Orders of n things in which each stands at each position equally often and follows each other equally often.

    n rows for even n, 2n for odd n (Williams, 1949: for odd n the mirrored square is needed too).
    """
    first = [0]
    for step in range(1, n):
        first.append((first[-1] + (step if step % 2 else n - step)) % n)
    square = [tuple((value + shift) % n for value in first) for shift in range(n)]
    if n % 2:
        square += [tuple(reversed(row)) for row in square]
    return tuple(square)


def _within_quota(used: NDArray[np.int64], trials: int) -> NDArray[np.bool_]:
    """Which parts may be used again, when `trials` uses are spread as evenly as whole numbers allow."""
    each, left_over = divmod(trials, len(used))
    extras_taken = int((used > each).sum())
    return (used < each) | ((used == each) & (extras_taken < left_over))


def _least_filled(counts: Counts, admissible: OpenCells, pair_used: NDArray[np.int64]) -> NDArray[np.int64]:
    """Flat indices of the admissible cells that are equally the best."""
    best = np.flatnonzero(admissible)
    together = np.broadcast_to(counts.sum(axis=2, keepdims=True), counts.shape)
    used = np.broadcast_to(pair_used[None, :, None], counts.shape)
    for rank in (together, counts, used):
        if len(best) > 1:
            values = rank.reshape(-1)[best]
            best = best[values == values.min()]
    return best


def _draw(best: NDArray[np.int64], key: bytes, step: int) -> int:
    """One of the equally good cells; 64 bits of HMAC modulo the number of cells favour none by more than 2**-40."""
    digest = hmac.digest(key, f"{ALGORITHM} step {step}".encode(), "sha256")
    return int(best[int.from_bytes(digest[:8], "big") % len(best)])
