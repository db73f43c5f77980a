"""Balance and exact quotas of the just-in-time assignment, simulated with drop-outs and concurrent participants."""

from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from study.assignment import (
    AssignmentError,
    Place,
    PlanRules,
    Step,
    next_cell,
    refuse_impossible_plan,
    session_plan,
    williams_square,
)
from tests.study.stage import soaked

PAPER_RULES = PlanRules(
    practice=4, real=40, gold_criteria=2, golds=4, first_after=3, min_gap=4, repeats=4, repeat_gap=10, candidates=2
)


def whole_session(counts: np.ndarray, trials: int, key: bytes) -> list[Place]:
    taken: list[Place] = []
    while assigned := next_cell(counts, taken, trials=trials, key=key):
        taken.append(assigned.place)
        counts[assigned.place] += 1
    return taken


@given(
    pairs=st.integers(1, 16),
    sides=st.integers(1, 6),
    extra_images=st.integers(0, 10),
    trials=st.integers(1, 25),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_every_person_gets_each_image_once_and_even_shares_of_pairs_and_sides(
    pairs: int, sides: int, extra_images: int, trials: int, seed: int
) -> None:
    counts = np.random.default_rng(seed).integers(0, 9, (trials + extra_images, pairs, sides))
    taken = whole_session(counts, trials, seed.to_bytes(8, "big"))
    assert len(taken) == trials
    assert len({place.image for place in taken}) == trials
    for shares, parts in ((Counter(p.pair for p in taken), pairs), (Counter(p.side for p in taken), sides)):
        even = [trials // parts + (part < trials % parts) for part in range(parts)]
        assert sorted((shares[part] for part in range(parts)), reverse=True) == even


def test_the_papers_design_gives_each_person_forty_images_five_per_baseline_and_twenty_per_side() -> None:
    counts = np.zeros((40, 8, 2), dtype=np.int64)
    for person in range(soaked(200, 10_000)):
        taken = whole_session(counts, 40, f"person {person}".encode())
        assert sorted(place.image for place in taken) == list(range(40))
        assert set(Counter(place.pair for place in taken).values()) == {5}
        assert set(Counter(place.side for place in taken).values()) == {20}


def check_plan(plan: tuple[Step, ...], rules: PlanRules) -> None:
    """What every plan promises, counted by hand."""
    practice, main = plan[: rules.practice], plan[rules.practice :]
    assert {step.kind for step in practice} <= {"practice"}
    kinds = Counter(step.kind for step in main)
    golds = rules.golds * rules.gold_criteria
    assert kinds == Counter(real=rules.real, gold=golds, attention=rules.attention, repeat=rules.repeats)
    tests = [at for at, step in enumerate(main) if step.kind in {"gold", "attention"}]
    assert not tests or tests[0] >= rules.first_after
    assert all(later - earlier >= rules.min_gap for earlier, later in pairwise(tests))
    assert sorted(step.item for step in main if step.kind == "attention") == list(range(rules.attention))
    asked = sorted((step.criterion, step.item) for step in main if step.kind == "gold")
    assert asked == [(of, item) for of in range(rules.gold_criteria) for item in range(rules.golds)]
    repeated = [(at, step.repeat_of) for at, step in enumerate(plan) if step.kind == "repeat"]
    assert all(at - original >= rules.repeat_gap and plan[original].kind == "real" for at, original in repeated)
    assert len({original for _, original in repeated}) == rules.repeats
    for steps in (practice, [main[at] for at in tests]):
        positions = Counter(step.right for step in steps)
        even = [len(steps) // rules.candidates + (at < len(steps) % rules.candidates) for at in range(rules.candidates)]
        assert sorted((positions[at] for at in range(rules.candidates)), reverse=True) == even


def test_ten_thousand_plans_keep_every_quota_and_every_distance() -> None:
    first, repeats, middles = Counter[int](), Counter[int](), Counter[int]()
    for person in range(10_000):
        plan = session_plan(PAPER_RULES, person.to_bytes(4, "big"))
        check_plan(plan, PAPER_RULES)
        main = plan[PAPER_RULES.practice :]
        first[next(at for at, step in enumerate(main) if step.kind == "gold")] += 1
        repeats.update(at for at, step in enumerate(main) if step.kind == "repeat")
        middles.update(at for at, step in enumerate(main) if step.kind == "gold")
    assert set(range(3, 12)) <= set(first)  # nobody can know where the first one is
    assert min(repeats) >= PAPER_RULES.repeat_gap
    assert len(repeats) >= 38
    assert set(middles) == set(range(3, 52))


@given(
    real=st.integers(1, 40),
    practice=st.integers(0, 5),
    gold_criteria=st.integers(1, 3),
    golds=st.integers(0, 4),
    first_after=st.integers(1, 6),
    min_gap=st.integers(1, 6),
    repeats=st.integers(0, 6),
    repeat_gap=st.integers(1, 12),
    candidates=st.integers(2, 9),
    attention=st.integers(0, 4),
    key=st.binary(min_size=1, max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_whatever_rules_fit_together_give_a_plan_that_keeps_them(key: bytes, **numbers: int) -> None:
    rules = PlanRules(**numbers)
    count = rules.golds * rules.gold_criteria + rules.attention
    fits = not count or rules.first_after + (count - 1) * rules.min_gap < rules.real + count + rules.repeats
    assume(fits and (not rules.repeats or rules.repeat_gap + rules.repeats <= rules.real))
    plan = session_plan(rules, key)
    check_plan(plan, rules)
    assert session_plan.__wrapped__(rules, key) == plan


def test_completed_sessions_alone_fill_all_cells_within_one_answer_of_each_other() -> None:
    counts = np.zeros((40, 8, 2), dtype=np.int64)
    for person in range(96):
        whole_session(counts, 40, f"{person}".encode())
    assert counts.sum() == 96 * 40
    together = counts.sum(axis=2)
    assert together.max() - together.min() <= 2
    assert abs(counts[..., 0] - counts[..., 1]).max() <= 2


def test_counts_stay_balanced_when_a_third_of_thousands_of_people_drop_out() -> None:
    """35 % drop out somewhere; their answers no longer count. Sessions overlap: thirty people take turns."""
    generator = np.random.default_rng(7)
    counts = np.zeros((20, 6, 2), dtype=np.int64)
    running: list[tuple[list[Place], int, bytes]] = []
    finished = 0
    for person in range(3000):
        stops_after = 20 if generator.random() > 0.35 else int(generator.integers(0, 20))
        running.append(([], stops_after, f"p{person}".encode()))
        while len(running) >= 30:
            at = int(generator.integers(len(running)))
            taken, stops_after, key = running[at]
            assigned = next_cell(counts, taken, trials=20, key=key) if len(taken) < stops_after else None
            if assigned:
                taken.append(assigned.place)
                counts[assigned.place] += 1
                continue
            running.pop(at)
            finished += len(taken) == 20
            if len(taken) < 20:
                for place in taken:
                    counts[place] -= 1
    for taken, _, _ in running:
        for place in taken:
            counts[place] -= 1
    together = counts.sum(axis=2)
    assert finished > 1800
    assert counts.sum() == finished * 20
    assert together.min() >= together.mean() - 4
    assert together.max() <= together.mean() + 4
    assert abs(counts[..., 0] - counts[..., 1]).max() <= 4


@dataclass
class Person:
    """Somebody in the simulation: what they were asked, how much of it they answered, when they give up."""

    key: bytes
    stops_after: int
    taken: list[Place] = field(default_factory=list)
    answered: int = 0


@dataclass
class Site:
    """A study with many people at once, run as `study.trials` does: two trials ahead, leases of ten minutes."""

    counts: np.ndarray
    target: int
    valid: np.ndarray = field(init=False)
    when_drained: np.ndarray | None = None
    """the valid answers at the moment when as many people as were wanted had completed it"""

    def __post_init__(self) -> None:
        self.valid = np.zeros_like(self.counts)

    def top_up(self, person: Person, trials: int) -> None:
        while len(person.taken) < person.answered + 2:
            only = self.counts < self.target if self.when_drained is not None else None
            assigned = next_cell(self.counts, person.taken, trials=trials, key=person.key, only=only)
            if assigned is None:
                return
            person.taken.append(assigned.place)
            self.counts[assigned.place] += 1

    def leave(self, person: Person) -> None:
        for place in person.taken:
            self.counts[place] -= 1

    def complete(self, person: Person) -> None:
        for place in person.taken:
            self.valid[place] += 1


def drained(shape: tuple[int, int, int], *, target: int, people: int, trials: int, per_minute: float) -> Site:
    """Run a study until every cell has its target: 35 % of all who come leave, 10 % of the others are excluded."""
    generator = np.random.default_rng(int(per_minute * 10))
    site = Site(np.zeros(shape, dtype=np.int64), target)
    completed = arrived = 0
    queue: list[tuple[float, int, str, Person | None]] = [(0.0, 0, "arrives", None)]
    while site.valid.min() < target:
        now, _, what, person = heappop(queue)
        if what == "arrives":
            arrived += 1
            heappush(queue, (now + generator.exponential(60 / per_minute), -arrived, "arrives", None))
            stops = int(generator.integers(0, trials)) if generator.random() < 0.35 else trials
            person = Person(f"person {arrived}".encode(), stops)
        assert person
        if what == "lease ends":
            site.leave(person)
            continue
        person.answered += what == "answers"
        site.top_up(person, trials)
        if person.answered == len(person.taken):
            if generator.random() < 0.10:
                site.leave(person)
                continue
            completed += person.answered > 0
            site.complete(person)
            if completed >= people and site.when_drained is None:
                site.when_drained = site.valid.copy()
        elif person.answered >= person.stops_after:
            heappush(queue, (now + 600, arrived, "lease ends", person))
        else:
            heappush(queue, (now + generator.gamma(4, 15 / 4), arrived, "answers", person))
    return site


@pytest.mark.parametrize("per_minute", [1, 3])
def test_a_drained_study_is_exactly_balanced_at_a_surplus_below_thirty_per_cent(per_minute: float) -> None:
    """The setting of the design: 40 images, 8 baselines, 12 answers per pair, 96 people, 35 % leave, 10 % excluded."""
    site = drained((40, 8, 2), target=6, people=96, trials=40, per_minute=per_minute)
    assert site.when_drained is not None
    answers = site.when_drained.sum(axis=2)
    assert answers.min() >= 8
    assert answers.max() <= 16
    assert abs(site.when_drained[..., 0] - site.when_drained[..., 1]).max() <= 4
    primary = np.minimum(site.valid, 6)  # the first six answers of every cell
    assert set(primary.ravel()) == {6}
    assert site.valid.sum() / primary.sum() - 1 <= 0.30


def test_a_best_of_nine_study_drains_to_every_method_at_every_position_equally_often() -> None:
    square = williams_square(9)
    site = drained((40, 1, len(square)), target=5, people=100, trials=40, per_minute=1)
    primary = np.minimum(site.valid, 5)
    assert len(square) == 18
    seen = Counter[tuple[int, int, int]]()
    for image, _, order in np.ndindex(*primary.shape):
        for position, method in enumerate(square[order]):
            seen[image, position, method] += int(primary[image, 0, order])
    assert set(seen.values()) == {10}  # of each image: nine methods at nine positions, ten times each
    assert site.valid.sum() / primary.sum() - 1 <= 0.30


def test_a_draining_study_offers_only_the_cells_still_wanted() -> None:
    counts = np.full((5, 3, 2), 6, dtype=np.int64)
    counts[2, 1, 0] = counts[4, 0, 1] = 5
    wanted = counts < 6
    first = next_cell(counts, [], trials=5, key=b"k", only=wanted)
    assert first
    second = next_cell(counts, [first.place], trials=5, key=b"k", only=wanted)
    assert second
    assert {first.place, second.place} == {Place(2, 1, 0), Place(4, 0, 1)}
    assert next_cell(counts, [first.place, second.place], trials=5, key=b"k", only=wanted) is None


def test_ties_are_drawn_by_the_key_and_nothing_else() -> None:
    counts = np.zeros((12, 5, 2), dtype=np.int64)
    again = [next_cell(counts, [], trials=10, key=b"one") for _ in range(3)]
    assert again[0] == again[1] == again[2]
    assert again[0]
    assert again[0].propensity == pytest.approx(1 / 120)
    drawn = Counter(
        found.place for n in range(6000) if (found := next_cell(counts, [], trials=10, key=n.to_bytes(4, "big")))
    )
    assert len(drawn) == 120
    expected = 6000 / 120
    chi_square = sum((seen - expected) ** 2 / expected for seen in drawn.values())
    assert chi_square < 181  # the 99.98 % point of chi-square with 119 degrees of freedom


def test_the_same_pair_does_not_come_twice_running_while_others_are_left() -> None:
    counts = np.zeros((30, 6, 2), dtype=np.int64)
    for person in range(50):
        taken = whole_session(counts, 30, f"{person}".encode())
        repeated = [later for earlier, later in pairwise(taken) if earlier.pair == later.pair]
        assert len(repeated) <= 1


def test_more_trials_than_images_are_refused_with_both_numbers() -> None:
    with pytest.raises(AssignmentError, match=r"40 trials but there are 12 images"):
        refuse_impossible_plan(images=12, trials=40)


@pytest.mark.parametrize("n", range(2, 13))
def test_a_williams_square_balances_positions_and_neighbours(n: int) -> None:
    square = williams_square(n)
    rows = n if n % 2 == 0 else 2 * n
    assert len(square) == rows
    assert all(sorted(row) == list(range(n)) for row in square)
    for position in range(n):
        assert set(Counter(row[position] for row in square).values()) == {rows // n}
    follows = Counter(neighbours for row in square for neighbours in pairwise(row))
    assert set(follows.values()) == {rows // n}
    assert len(follows) == 2 * len(list(combinations(range(n), 2)))
