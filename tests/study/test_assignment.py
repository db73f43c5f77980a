"""Balance and exact quotas of the just-in-time assignment, simulated with drop-outs and concurrent participants."""

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.assignment import AssignmentError, Place, next_cell, refuse_impossible_plan, williams_square


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
    for person in range(200):
        taken = whole_session(counts, 40, f"person {person}".encode())
        assert sorted(place.image for place in taken) == list(range(40))
        assert set(Counter(place.pair for place in taken).values()) == {5}
        assert set(Counter(place.side for place in taken).values()) == {20}


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
