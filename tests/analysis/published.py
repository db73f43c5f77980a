"""Published data sets as votes, with where they come from."""

import numpy as np

from analysis.votes import CHOICE, NONE, TIE, Votes, make_votes

BASEBALL_TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
BASEBALL = """
 -  4-3 4-2 4-3 6-1 4-2 6-0
3-3  -  4-2 4-3 6-0 6-1 4-3
2-5 4-3  -  2-4 4-3 4-2 6-0
3-3 5-1 2-5  -  4-3 4-2 6-1
5-1 2-5 3-3 4-2  -  5-2 6-0
2-5 3-3 3-4 4-3 4-2  -  2-4
2-5 1-5 1-6 2-4 1-6 3-4  -
"""
"""American League East 1987: row at home against column, home wins - away wins (Agresti 1990, table 10.10)."""

JOURNALS = ("Biometrika", "Comm Statist", "JASA", "JRSS-B")
CITATIONS = np.array([[714, 33, 320, 284], [730, 425, 813, 276], [498, 68, 1072, 325], [221, 17, 142, 188]])
"""Row cites column (Stigler 1994); a citation is a win for the cited."""

PUDDINGS = """
1 2 19 22 16
1 3 16 19 12
2 3 19 19 10
1 4 18 23 13
2 4 23 19 9
3 4 19 20 15
1 5 13 19 18
2 5 16 20 12
3 5 16 15 17
4 5 17 14 16
1 6 18 21 12
2 6 22 20 12
3 6 13 18 10
4 6 14 19 18
5 6 11 21 12
"""
"""Brands i and j, preferred i, preferred j, no preference (Davidson 1970)."""


def games(rows: list[tuple[int, int, int]], methods: tuple[str, ...]) -> Votes:
    """Independent answers (first, second, position or NONE for a tie): each its own person and image."""
    table = np.array(rows)
    n = len(table)
    names = [str(number) for number in range(n)]
    return make_votes(
        participant=np.arange(n), image=np.arange(n), criterion=np.zeros(n, np.int8), shown=table[:, :2],
        outcome=np.where(table[:, 2] == NONE, TIE, CHOICE), position=table[:, 2],
        participants=names, images=names, criteria=["preference"], methods=methods,
    )  # fmt: skip


def baseball() -> Votes:
    """Home is the first position."""
    rows: list[tuple[int, int, int]] = []
    for home, line in enumerate(BASEBALL.split("\n")[1:-1]):
        for away, cell in enumerate(line.split()):
            if cell != "-":
                won, lost = map(int, cell.split("-"))
                rows += [(home, away, 0)] * won + [(home, away, 1)] * lost
    return games(rows, BASEBALL_TEAMS)


def citations() -> Votes:
    """The cited journal wins; self-citations compare nothing."""
    return games([(i, j, 1) for i in range(4) for j in range(4) if i != j for _ in range(CITATIONS[i, j])], JOURNALS)


def puddings() -> Votes:
    """With ties."""
    rows: list[tuple[int, int, int]] = []
    for line in PUDDINGS.strip().split("\n"):
        i, j, first, second, ties = map(int, line.split())
        rows += [(i - 1, j - 1, 0)] * first + [(i - 1, j - 1, 1)] * second + [(i - 1, j - 1, NONE)] * ties
    return games(rows, tuple("123456"))
