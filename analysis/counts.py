"""Votes summed into count tensors: who beat whom how often, by person, by image, or both.

One pass of `np.bincount` over an integer key per vote; what does not count (excluded, repeated, can't-tell) goes to
one bin more than there are, so that a million rows need not be copied first.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.votes import CANT_TELL, NONE, PAIR, TIE, Integers, Votes, VotesError

Singles = NDArray[np.float32]
"""Half-integers below 2**23, which 32 bits hold exactly."""

OUTCOMES = 3
"""First chosen, second chosen, tie."""

TIED = 2
"""Place of ties among the outcomes."""

LARGEST_TENSOR = 2**27
"""Cells; above this (1 GB while counting) a study is summed by person or by image, not by both."""

By = Literal["nothing", "participant", "image", "both"]


class CountsError(VotesError):
    """Votes that cannot be summed into pairs; the message says why."""


def outcome_counts(votes: Votes, by: By = "nothing") -> Integers:
    """(groups..., criteria, methods, methods, 3): how each ordered pair (first, second) was answered.

    The leading axes are none, participants, images, or participants and images.

    Raises:
        CountsError: for trials with more than two methods, or a tensor larger than memory should hold.
    """
    if votes.shown.shape[1] != PAIR:
        raise CountsError(f"Pairs are needed, but trials showed up to {votes.shown.shape[1]} methods; use choice sets.")
    shape = (*group_sizes(votes, by), len(votes.criteria), len(votes.methods), len(votes.methods), OUTCOMES)
    size = int(np.prod(shape, dtype=np.int64))
    if size > LARGEST_TENSOR:
        raise CountsError(f"A table of {size} counts is too large; sum by participant or by image instead of {by!r}.")
    key = _pair_key(votes, by, np.int32 if size < 2**31 else np.int64)
    return np.bincount(np.where(_countable(votes), key, size), minlength=size + 1)[:size].reshape(shape)


def half_wins(counts: Integers) -> Singles:
    """(..., methods, methods) wins of the row over the column, a tie being half a win for both.

    Args:
        counts: from `outcome_counts`.
    """
    halves = 2 * counts[..., :TIED] + counts[..., TIED:]
    return (halves[..., 0] + halves[..., 1].swapaxes(-1, -2)).astype(np.float32) / np.float32(2)


def group_sizes(votes: Votes, by: By) -> tuple[int, ...]:
    """How many groups there are along each leading axis."""
    people, images = len(votes.participants), len(votes.images)
    return {"nothing": (), "participant": (people,), "image": (images,), "both": (people, images)}[by]


def _pair_key(votes: Votes, by: By, dtype: type[np.signedinteger]) -> Integers:
    m = len(votes.methods)
    # Ties and choices in one number: 0 and 1 are positions, 2 is a tie.
    answer = np.where(votes.outcome == TIE, TIED, votes.position)
    columns = [(votes.criterion, len(votes.criteria)), (votes.shown[:, 0], m), (votes.shown[:, 1], m)]
    if by in {"image", "both"}:
        columns.insert(0, (votes.image, len(votes.images)))
    if by in {"participant", "both"}:
        columns.insert(0, (votes.participant, len(votes.participants)))
    key = columns[0][0].astype(dtype)
    for codes, size in columns[1:]:
        key *= dtype(size)
        key += codes
    key *= dtype(OUTCOMES)
    key += answer
    return key


def _countable(votes: Votes) -> NDArray[np.bool_]:
    return votes.counted & (votes.outcome != CANT_TELL) & (votes.shown[:, 0] != NONE) & (votes.shown[:, 1] != NONE)
