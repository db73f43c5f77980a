"""A migrated SQLite study filled with given votes through the tables the app uses: what loading is tested on."""

import json
from pathlib import Path

import numpy as np
from sqlalchemy import insert
from sqlalchemy.orm import Session

from analysis.votes import CHOICE, NONE, PAIR, Votes
from db.engine import Database
from db.migrate import migrate
from db.models import (
    AnalysisVote,
    Blob,
    Cell,
    Image,
    Method,
    Participant,
    Rendition,
    Response,
    Study,
    StudySession,
    StudyVersion,
    Trial,
    TrialSlot,
)

HASH = "0" * 64
FIRST_ID = 7
"""Row ids start here, so that a code mistaken for an id shows."""


def write_study(folder: Path, votes: Votes, slug: str = "example") -> str:
    """The address of a new database holding the votes as version 1 of a study."""
    return fill_study(f"sqlite:///{folder / 'study.sqlite'}", votes, slug)


def fill_study(url: str, votes: Votes, slug: str = "example") -> str:
    """The address itself, once the empty database behind it holds the votes."""
    migrate(url)
    with Database.open(url) as database:
        database.write(lambda session: _fill(session, votes, slug))
    return url


def _fill(session: Session, votes: Votes, slug: str) -> None:
    criteria = json.dumps({"criteria": [{"key": name} for name in votes.criteria]})
    session.execute(insert(Study), [{"id": FIRST_ID, "slug": slug, "created_at": 0}])
    version = {"study_id": FIRST_ID, "version": 1, "spec_json": criteria, "spec_sha256": HASH, "design_seed": HASH}
    session.execute(insert(StudyVersion), [{"id": FIRST_ID, "status": "live", "created_at": 0, **version}])
    own = {"version_id": FIRST_ID}
    session.execute(
        insert(Method),
        [
            {"id": FIRST_ID + i, "key": key, "alias": f"M{i}", "role": "baseline", **own}
            for i, key in enumerate(votes.methods)
        ],
    )
    session.execute(
        insert(Image),
        [
            {
                "id": FIRST_ID + i,
                "key": key,
                "source_sha256": HASH,
                "hole_sha256": HASH,
                "stratum": _stratum(votes, i),
                **own,
            }
            for i, key in enumerate(votes.images)
        ],
    )
    people = range(len(votes.participants))
    session.execute(
        insert(Participant),
        [{"id": FIRST_ID + i, "source": "lab", "ext_hmac": f"{i:064d}", "created_at": 0, **own} for i in people],
    )
    session.execute(insert(StudySession), [_session(i) | own for i in people])
    _fill_trials(session, votes)


def _stratum(votes: Votes, image: int) -> str:
    return "" if votes.domain[image] == NONE else votes.domains[votes.domain[image]]


def _session(i: int) -> dict[str, object]:
    return {
        "id": FIRST_ID + i, "public_id": f"s{i}", "participant_id": FIRST_ID + i, "token_hash": f"{i:064d}",
        "state": "completed", "plan_seed": HASH, "locale": "en", "is_test": False, "created_at": 0, "last_seen": 0,
    }  # fmt: skip


def _fill_trials(session: Session, votes: Votes) -> None:
    pairwise = votes.shown.shape[1] == PAIR
    cells = _cells(votes)
    session.execute(insert(Cell), list(cells.values()))
    _, first_rows = np.unique(votes.trial, return_index=True)
    repeats = {int(votes.trial[row]): int(votes.repeat_of[row]) for row in first_rows if votes.repeat_of[row] != NONE}
    session.execute(insert(Trial), [_trial(votes, int(row), cells) for row in first_rows])
    if not pairwise:
        _fill_slots(session, votes, first_rows.tolist())
    rows = range(len(votes))
    session.execute(
        insert(Response),
        [
            {
                "id": FIRST_ID + row, "trial_id": FIRST_ID + int(votes.trial[row]), "idempotency_key": f"k{row}",
                "criterion": votes.criteria[votes.criterion[row]],
                "outcome": ("choice", "tie", "cant_tell")[votes.outcome[row]], "answered_at": 0,
                "position": int(votes.position[row]) if votes.outcome[row] == CHOICE else None,
            }
            for row in rows
        ],
    )  # fmt: skip
    session.execute(insert(AnalysisVote), [_fact(votes, row, cells, repeats) for row in rows])


def _cell_key(votes: Votes, row: int) -> tuple[int, ...]:
    return (int(votes.image[row]), *votes.shown[row].tolist())


def _cells(votes: Votes) -> dict[tuple[int, ...], dict[str, object]]:
    cells: dict[tuple[int, ...], dict[str, object]] = {}
    orders: dict[tuple[int, ...], int] = {}
    for row in range(len(votes)):
        key = _cell_key(votes, row)
        order = orders.setdefault(key[1:], len(orders))
        if key in cells:
            continue
        cell: dict[str, object] = {
            "id": FIRST_ID + len(cells), "version_id": FIRST_ID, "image_id": FIRST_ID + key[0], "target": 1,
            "n_valid": 0, "n_live": 0, "n_partial": 0,
            "method_lo_id": None, "method_hi_id": None, "side": None, "rotation": order,
        }  # fmt: skip
        if len(key) == 1 + PAIR:
            low, high = sorted(key[1:])
            side = int(key[1] != low)
            cell |= {"method_lo_id": FIRST_ID + low, "method_hi_id": FIRST_ID + high, "side": side, "rotation": None}
        cells[key] = cell
    return cells


def _trial(votes: Votes, row: int, cells: dict[tuple[int, ...], dict[str, object]]) -> dict[str, object]:
    number, repeat = int(votes.trial[row]), int(votes.repeat_of[row])
    return {
        "id": FIRST_ID + number, "public_id": f"t{number}", "version_id": FIRST_ID, "seq": number,
        "session_id": FIRST_ID + int(votes.participant[row]), "kind": "real" if repeat == NONE else "repeat",
        "image_id": FIRST_ID + int(votes.image[row]), "cell_id": cells[_cell_key(votes, row)]["id"],
        "repeat_of_id": None if repeat == NONE else FIRST_ID + repeat, "state": "answered", "assign_algo": "test",
        "issued_at": 0, "answered_at": 0,
    }  # fmt: skip


def _fill_slots(session: Session, votes: Votes, first_rows: list[int]) -> None:
    session.execute(insert(Blob), [{"id": 1, "sha256": HASH, "length": 1, "content": b"x", "path": None}])
    pictures = {(int(votes.image[row]), method) for row in first_rows for method in votes.shown[row].tolist()}
    renditions = {picture: FIRST_ID + i for i, picture in enumerate(sorted(pictures))}
    session.execute(
        insert(Rendition),
        [
            {
                "id": number, "version_id": FIRST_ID, "image_id": FIRST_ID + image, "method_id": FIRST_ID + method,
                "kind": "output", "variant": "", "blob_id": 1, "pixel_sha256": HASH, "width": 1, "height": 1,
            }
            for (image, method), number in renditions.items()
        ],
    )  # fmt: skip
    session.execute(
        insert(TrialSlot),
        [
            {
                "trial_id": FIRST_ID + int(votes.trial[row]), "role": "candidate", "position": position,
                "rendition_id": renditions[int(votes.image[row]), method], "token_hash": f"{row}-{position}",
            }
            for row in first_rows
            for position, method in enumerate(votes.shown[row].tolist())
        ],
    )  # fmt: skip


def _fact(
    votes: Votes, row: int, cells: dict[tuple[int, ...], dict[str, object]], repeats: dict[int, int]
) -> dict[str, object]:
    cell = cells[_cell_key(votes, row)]
    chosen, trial = int(votes.chosen[row]), int(votes.trial[row])
    pairwise = votes.shown.shape[1] == PAIR
    return {
        "response_id": FIRST_ID + row, "version_id": FIRST_ID, "criterion": int(votes.criterion[row]),
        "kind": int(trial in repeats), "image_id": FIRST_ID + int(votes.image[row]),
        "session_id": FIRST_ID + int(votes.participant[row]), "participant_id": FIRST_ID + int(votes.participant[row]),
        "trial_id": FIRST_ID + trial, "cell_id": cell["id"],
        "first_method_id": FIRST_ID + int(votes.shown[row, 0]) if pairwise else None,
        "second_method_id": FIRST_ID + int(votes.shown[row, 1]) if pairwise else None,
        "rotation": cell["rotation"], "chosen_method_id": None if chosen == NONE else FIRST_ID + chosen,
        "outcome": int(votes.outcome[row]), "answered_at": 0, "used": int(votes.used[row]),
        "position": None if chosen == NONE else int(votes.position[row]),
        "rt_ms": None if votes.response_ms[row] == NONE else int(votes.response_ms[row]),
    }  # fmt: skip
