"""Which question a participant gets next: a seeded plan of the session, and pure functions over counts for its cells.

Cells form a grid (image, pair, side): for pairwise studies `pair` counts the compared pairs and `side` says which of
the two stands left; for best-of-n there is one "pair" (all methods) and `side` counts the rows of a Williams square.
"""

import hmac
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

ALGORITHM = "jit-1"
"""Recorded with every trial; raised when the rule below changes."""

Counts = NDArray[np.int64]
"""(images, pairs, sides): how many answers a cell has or is about to get."""

OpenCells = NDArray[np.bool_]
"""(images, pairs, sides): True where another answer is wanted."""


StepKind = Literal["practice", "gold", "attention", "real", "repeat"]

T = TypeVar("T")


@dataclass(frozen=True)
class PlanRules:
    """What every session of a study is made of; see `study.definition.Plan`.

    Attributes:
        gold_criteria: how many criteria have gold pictures; golds and practice take turns among them.
        golds: gold trials per such criterion.
        attention: trials that say what to choose; placed as if they were golds.
        candidates: positions of a trial.
    """

    practice: int
    real: int
    gold_criteria: int
    golds: int
    first_after: int
    min_gap: int
    repeats: int
    repeat_gap: int
    candidates: int
    attention: int = 0


@dataclass(frozen=True)
class Step:
    """One trial of a session's plan.

    Attributes:
        criterion: for practice and gold: which of the criteria that have gold pictures is tested.
        item: for practice, gold and attention: which of the prepared pictures.
        right: for practice, gold and attention: the position of the right answer.
        repeat_of: for a repeat: the index of the step it repeats.
    """

    kind: StepKind
    criterion: int = 0
    item: int = 0
    right: int = 0
    repeat_of: int = 0


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


@lru_cache(maxsize=4096)
def session_plan(rules: PlanRules, key: bytes) -> tuple[Step, ...]:
    """What a session asks, step by step: practice, then real trials with golds, marked pictures and repeats among them.

    The first gold or attention trial comes after `first_after` trials and they are `min_gap` apart, placed evenly at
    random among all such placements. A repeat comes at least `repeat_gap` trials after a real trial of its own. Right
    answers stand at each position equally often, give or take one.

    Args:
        rules: of the study; they must fit together, as `study.definition` checks.
        key: secret to the session; the same key gives the same plan.
    """
    draw = _Draw(key)
    total = rules.real + rules.repeats + rules.golds * rules.gold_criteria + rules.attention
    practice = [Step("practice", at % rules.gold_criteria, at) for at in range(rules.practice)]
    tests = [Step("gold", of, item) for of in range(rules.gold_criteria) for item in range(rules.golds)]
    tests += [Step("attention", item=item) for item in range(rules.attention)]
    draw.shuffle(tests)
    main = [Step("real")] * total
    for at, step in zip(_test_places(rules, total, len(tests), draw), tests, strict=True):
        main[at] = step
    for at, original in _repeat_places(rules, main, draw).items():
        main[at] = Step("repeat", repeat_of=len(practice) + original)
    return (*_with_right_answers(practice, rules, draw), *_with_right_answers(main, rules, draw))


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


class _Draw:
    """Draws that the same key gives on every machine and under every version of every library."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def below(self, n: int) -> int:
        """One of 0 ... n - 1; 64 bits modulo n favour none by more than n * 2**-64."""
        self._number += 1
        digest = hmac.digest(self._key, f"plan {self._number}".encode(), "sha256")
        return int.from_bytes(digest[:8], "big") % n

    def shuffle(self, items: MutableSequence[T]) -> None:
        """Into one of all orders, each equally likely (Fisher and Yates)."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """So many of the items, in their order."""
        places = list(range(len(items)))
        self.shuffle(places)
        return [items[at] for at in sorted(places[:count])]


def _test_places(rules: PlanRules, total: int, count: int, draw: _Draw) -> list[int]:
    """Ascending places, none before `first_after`, neighbours at least `min_gap` apart."""
    if not count:
        return []
    # Without the gaps between them, places with gaps are plain combinations.
    slack = rules.min_gap - 1
    narrow = draw.some(range(rules.first_after, total - slack * (count - 1)), count)
    return [place + slack * at for at, place in enumerate(narrow)]


def _repeat_places(rules: PlanRules, main: Sequence[Step], draw: _Draw) -> dict[int, int]:
    """Place of each repeat -> place of the real trial it repeats."""
    free = [at for at, step in enumerate(main) if step.kind == "real"]
    # As many real trials as there are repeats lie before the first place that is far enough from all of them.
    chosen = draw.some(free[rules.repeats + rules.repeat_gap - 1 :], rules.repeats)
    originals = [at for at in free if at not in chosen]
    repeat_of: dict[int, int] = {}
    for at in chosen:
        early = [original for original in originals if original <= at - rules.repeat_gap]
        repeat_of[at] = early[draw.below(len(early))]
        originals.remove(repeat_of[at])
    return repeat_of


def _with_right_answers(steps: Sequence[Step], rules: PlanRules, draw: _Draw) -> list[Step]:
    tested = [at for at, step in enumerate(steps) if step.kind in {"practice", "gold", "attention"}]
    positions = [at % rules.candidates for at in range(len(tested))]
    draw.shuffle(positions)
    right = dict(zip(tested, positions, strict=True))
    return [
        Step(step.kind, step.criterion, step.item, right[at]) if at in right else step for at, step in enumerate(steps)
    ]


def _within_quota(used: NDArray[np.int64], trials: int) -> NDArray[np.bool_]:
    """Which parts may be used again, when `trials` uses are spread as evenly as whole numbers allow."""
    each, left_over = divmod(trials, len(used))
    extras_taken = int((used > each).sum())
    return (used < each) | ((used == each) & (extras_taken < left_over))


def _least_filled(counts: Counts, admissible: OpenCells, pair_used: NDArray[np.int64]) -> NDArray[np.int64]:
    """Flat indices of the admissible cells that are equally the best."""
    _, pairs, sides = counts.shape
    best = np.flatnonzero(admissible)
    best = _fewest(best, counts.sum(axis=2).reshape(-1)[best // sides])
    best = _fewest(best, counts.reshape(-1)[best])
    return _fewest(best, pair_used[best // sides % pairs])


def _fewest(cells: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    return cells[values == values.min()] if len(cells) > 1 else cells


def _draw(best: NDArray[np.int64], key: bytes, step: int) -> int:
    """One of the equally good cells; 64 bits of HMAC modulo the number of cells favour none by more than 2**-40."""
    digest = hmac.digest(key, f"{ALGORITHM} step {step}".encode(), "sha256")
    return int(best[int.from_bytes(digest[:8], "big") % len(best)])
