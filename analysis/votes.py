"""Votes as integer-coded columns and the names behind the codes: what every estimate in this folder starts from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer]
Booleans = NDArray[np.bool_]

CHOICE: Final = 0
TIE: Final = 1
CANT_TELL: Final = 2
OUTCOMES: Final = ("choice", "tie", "cant_tell")
"""The words of the export, in the order of their codes."""

NONE: Final = -1
"""Code for an empty position, no chosen position, an unknown time and "not a repeat"."""

PAIR: Final = 2
"""Positions in a pairwise trial."""


class VotesError(ValueError):
    """Votes that contradict themselves or the names they point to; the message says where and what to mend."""


@dataclass(frozen=True, eq=False)
class Votes:
    """Answers, one row per trial and criterion.

    Attributes:
        participant: (n,) index into `participants`.
        image: (n,) index into `images`.
        criterion: (n,) index into `criteria`.
        shown: (n, positions) index into `methods` in the order of the positions; NONE where a position was empty.
            Pairwise votes have two positions (left, right).
        outcome: (n,) CHOICE, TIE or CANT_TELL.
        position: (n,) the chosen position, NONE unless the outcome is CHOICE.
        trial: (n,) the trial a row belongs to; a trial has at most one row per criterion.
        repeat_of: (n,) for a repeated question the trial it repeats, else NONE.
        response_ms: (n,) milliseconds from shown to answered, NONE where unknown.
        used: (n,) False where an exclusion rule of the study applies.
        domain: (images,) index into `domains`, NONE where unknown.
        participants: one name per participant code.
        images: one name per image code.
        criteria: one name per criterion code.
        methods: one name per method code.
        domains: one name per domain code.

    Raises:
        VotesError: when lengths differ, codes point nowhere, or outcome and position contradict each other.
    """

    participant: Integers
    image: Integers
    criterion: Integers
    shown: Integers
    outcome: Integers
    position: Integers
    trial: Integers
    repeat_of: Integers
    response_ms: Integers
    used: Booleans
    domain: Integers
    participants: tuple[str, ...]
    images: tuple[str, ...]
    criteria: tuple[str, ...]
    methods: tuple[str, ...]
    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _refuse_uneven_columns(self)
        _refuse_codes_without_a_name(self)
        _refuse_contradictions(self)

    def __len__(self) -> int:
        return int(self.participant.size)

    @property
    def counted(self) -> Booleans:
        """(n,) True for the rows estimates are made of: not excluded, not a repeat of an earlier question."""
        return self.used & (self.repeat_of == NONE)

    @property
    def chosen(self) -> Integers:
        """(n,) the method that was chosen, NONE for ties and can't-tell."""
        chosen = np.full(len(self), NONE, dtype=self.shown.dtype)
        rows = np.flatnonzero(self.outcome == CHOICE)
        chosen[rows] = self.shown[rows, self.position[rows]]
        return chosen

    @property
    def is_pairwise(self) -> bool:
        """True when every trial showed exactly two methods."""
        return self.shown.shape[1] == PAIR and not bool((self.shown == NONE).any())

    def only(self, rows: Booleans) -> "Votes":
        """The votes at the given rows; the names keep their codes."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _ROW_COLUMNS})

    def for_criterion(self, criterion: str) -> "Votes":
        """The votes on one criterion.

        Raises:
            VotesError: when no criterion has that name.
        """
        return self.only(self.criterion == _code(criterion, self.criteria, "criterion"))

    def method_code(self, method: str) -> int:
        """The code of a method's name.

        Raises:
            VotesError: when no method has that name.
        """
        return _code(method, self.methods, "method")

    def with_exclusions_lifted(self) -> "Votes":
        """The same votes as if no exclusion rule had applied: the other half of a with-and-without comparison."""
        return replace(self, used=np.ones(len(self), dtype=np.bool_))


_ROW_COLUMNS = (
    "participant", "image", "criterion", "shown", "outcome", "position", "trial", "repeat_of", "response_ms", "used",
)  # fmt: skip


def make_votes(
    *,
    participant: Integers,
    image: Integers,
    criterion: Integers,
    shown: Integers,
    outcome: Integers,
    position: Integers,
    participants: Sequence[str],
    images: Sequence[str],
    criteria: Sequence[str],
    methods: Sequence[str],
    trial: Integers | None = None,
    repeat_of: Integers | None = None,
    response_ms: Integers | None = None,
    used: Booleans | None = None,
    domain: Integers | None = None,
    domains: Sequence[str] = (),
) -> Votes:
    """Votes from the columns every study has; what is not given means: own trial, no repeat, unknown time, used."""
    n = participant.size
    unknown = np.full(n, NONE, dtype=np.int32)
    return Votes(
        participant=participant,
        image=image,
        criterion=criterion,
        shown=shown,
        outcome=outcome,
        position=position,
        trial=np.arange(n, dtype=np.int32) if trial is None else trial,
        repeat_of=unknown if repeat_of is None else repeat_of,
        response_ms=unknown if response_ms is None else response_ms,
        used=np.ones(n, dtype=np.bool_) if used is None else used,
        domain=np.full(len(images), NONE, dtype=np.int32) if domain is None else domain,
        participants=tuple(participants),
        images=tuple(images),
        criteria=tuple(criteria),
        methods=tuple(methods),
        domains=tuple(domains),
    )


def _code(name: str, names: tuple[str, ...], kind: str) -> int:
    if name not in names:
        raise VotesError(f"There is no {kind} called {name!r} in these votes; they have: {', '.join(names) or 'none'}.")
    return names.index(name)


def _refuse_uneven_columns(votes: Votes) -> None:
    for name in _ROW_COLUMNS:
        length = getattr(votes, name).shape[0]
        if length != len(votes):
            raise VotesError(f"The column {name} has {length} rows but participant has {len(votes)}.")
    if votes.shown.ndim != 2:  # noqa: PLR2004 - rows and positions
        raise VotesError(f"shown has shape {votes.shown.shape}; it needs a row per vote and a column per position.")
    if votes.domain.shape != (len(votes.images),):
        raise VotesError(f"There are {len(votes.images)} images but {votes.domain.size} domains; give one per image.")


def _refuse_codes_without_a_name(votes: Votes) -> None:
    bounds = (
        ("participant", votes.participant, 0, len(votes.participants)),
        ("image", votes.image, 0, len(votes.images)),
        ("criterion", votes.criterion, 0, len(votes.criteria)),
        ("shown", votes.shown, NONE, len(votes.methods)),
        ("outcome", votes.outcome, CHOICE, len(OUTCOMES)),
        ("position", votes.position, NONE, votes.shown.shape[1]),
        ("domain", votes.domain, NONE, len(votes.domains)),
    )
    for name, codes, lowest, end in bounds:
        if codes.size and (codes.min() < lowest or codes.max() >= end):
            raise VotesError(
                f"The column {name} holds codes from {codes.min()} to {codes.max()}, but only {lowest} to {end - 1} "
                "have a meaning; code names and columns from the same table."
            )


def _refuse_contradictions(votes: Votes) -> None:
    has_position = votes.position != NONE
    wrong = np.flatnonzero(has_position != (votes.outcome == CHOICE))
    if wrong.size:
        word = OUTCOMES[int(votes.outcome[wrong[0]])]
        raise VotesError(
            f"Vote {wrong[0]} has the outcome {word!r} and position {votes.position[wrong[0]]}; a choice names a "
            "position, a tie or can't-tell none."
        )
    rows = np.flatnonzero(has_position)
    empty = rows[votes.shown[rows, votes.position[rows]] == NONE]
    if empty.size:
        raise VotesError(f"Vote {empty[0]} chooses position {votes.position[empty[0]]}, where nothing was shown.")
    if votes.shown.shape[1] == PAIR:
        same = np.flatnonzero((votes.shown[:, 0] == votes.shown[:, 1]) & (votes.shown[:, 0] != NONE))
        if same.size:
            raise VotesError(f"Vote {same[0]} shows {votes.methods[votes.shown[same[0], 0]]!r} on both sides.")
