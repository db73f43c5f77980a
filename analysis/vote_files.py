"""Votes from a study's database, or from a CSV or Parquet file in one of three layouts (docs/analysis.md)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.votes import NONE, OUTCOMES, Booleans, Integers, Votes, VotesError, make_votes

SEPARATOR = "|"
"""Between the methods of one cell of `methods_shown`."""


class LoadError(VotesError):
    """A file or database that holds no readable votes; the message names the column or row and what to change."""


_OURS: Mapping[str, tuple[str, ...]] = {
    "participant": ("participant_no", "participant"),
    "image": ("image_key", "image"),
    "criterion": ("criterion",),
    "methods_shown": ("methods_shown",),
    "outcome": ("outcome",),
}
"""The columns an export of the study needs, with the names accepted for each."""

_PWCMP: Mapping[str, tuple[str, ...]] = {
    "participant": ("observer",),
    "image": ("scene",),
    "first": ("condition_A",),
    "second": ("condition_B",),
    "first_chosen": ("is_A_selected",),
}

_ARENA: Mapping[str, tuple[str, ...]] = {
    "participant": ("judge", "participant", "user"),
    "image": ("question_id", "image", "image_key"),
    "first": ("model_a",),
    "second": ("model_b",),
    "winner": ("winner",),
}

_ARENA_OUTCOMES: Mapping[str, tuple[str, int]] = {
    "model_a": ("choice", 0),
    "model_b": ("choice", 1),
    "tie": ("tie", NONE),
    "tie (bothbad)": ("tie", NONE),
    "cant_tell": ("cant_tell", NONE),
}

_ONLY_CRITERION = "preference"
"""What the single question is called in layouts that know only one."""

_TRUE = frozenset({"1", "true", "yes"})
_FALSE = frozenset({"0", "false", "no"})
_NOT_COUNTED_KINDS = frozenset({"practice", "gold", "attention"})
"""Kinds of trials that check or train the participant; they compare no methods."""


def read_votes(source: Path) -> Votes:
    """Votes from a `.csv` or `.parquet` file, or from the folder of a study's export (its `votes.parquet` or `.csv`).

    Three layouts are recognised by their columns: the study's export (long form, one row per trial and criterion),
    pwcmp (observer, scene, condition_A, condition_B, is_A_selected) and arena battles (model_a, model_b, winner).

    Raises:
        LoadError: when the file cannot be read, a needed column is missing, or a value has no meaning.
    """
    table = _read_table(_votes_file(source))
    columns = set(table.columns)
    if {"condition_A", "condition_B"} & columns:
        return _from_pwcmp(table)
    if {"model_a", "model_b"} & columns:
        return _from_arena(table)
    return _from_export(table)


def _votes_file(source: Path) -> Path:
    if source.is_dir():
        for name in ("votes.parquet", "votes.csv"):
            if (source / name).is_file():
                return source / name
        raise LoadError(f"The folder {source} holds neither votes.parquet nor votes.csv; export the study again.")
    if not source.is_file():
        raise LoadError(f"There is no file {source}; give a votes CSV, a Parquet file or an export folder.")
    return source


def _read_table(source: Path) -> pd.DataFrame:
    """Every cell as text, missing cells as empty text, so that one set of rules reads both formats."""
    try:
        if source.suffix == ".parquet":
            return _as_text(pd.read_parquet(source))
        return pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as problem:
        raise LoadError(f"{source.name} cannot be read as a table of votes ({problem}).") from problem


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: [_cell_text(cell) for cell in table[name].tolist()] for name in table.columns})


def _cell_text(cell: object) -> str:
    if cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
        return ""
    if isinstance(cell, list | tuple | np.ndarray):
        return SEPARATOR.join("" if part is None else str(part) for part in cell)
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))  # an integer column with gaps arrives as float
    return str(cell)


def _from_export(table: pd.DataFrame) -> Votes:
    found = _find_columns(table, _OURS)
    if not {"position_chosen", "method_chosen"} & set(table.columns):
        raise LoadError(
            "The table has neither a column position_chosen nor method_chosen; one of them must say the choice."
        )
    if "kind" in table:
        table = table[~table["kind"].isin(_NOT_COUNTED_KINDS)].reset_index(drop=True)
    outcome = _outcome_codes(_text(table, found["outcome"]))
    methods, shown = _shown_codes(_text(table, found["methods_shown"]))
    position = _positions(table, shown, methods, outcome)
    trial, repeat_of = _trials(table)
    images, image = _names(table, found["image"])
    domains, domain = _image_domains(table, image, len(images))
    participants, participant = _names(table, found["participant"])
    criteria, criterion = _names(table, found["criterion"])
    votes = make_votes(
        participant=participant, image=image, criterion=criterion, shown=shown, outcome=outcome, position=position,
        trial=trial, repeat_of=repeat_of, response_ms=_milliseconds(table), used=_used(table), domain=domain,
        participants=participants, images=images, criteria=criteria, methods=methods, domains=domains,
    )  # fmt: skip
    _refuse_duplicates(votes, has_trials="trial_id" in table)
    return votes


def _from_pwcmp(table: pd.DataFrame) -> Votes:
    found = _find_columns(table, _PWCMP)
    flags = _flags(table, found["first_chosen"])
    outcome = np.zeros(len(table), dtype=np.int8)
    return _from_two_columns(table, found, outcome, np.where(flags, 0, 1).astype(np.int8))


def _from_arena(table: pd.DataFrame) -> Votes:
    found = _find_columns(table, _ARENA)
    winners = _text(table, found["winner"])
    unknown = [row for row, word in enumerate(winners) if word not in _ARENA_OUTCOMES]
    if unknown:
        raise LoadError(
            f"Row {unknown[0] + 1} has the winner {winners[unknown[0]]!r}; "
            f"it must be one of {', '.join(_ARENA_OUTCOMES)}."
        )
    outcome = np.array([OUTCOMES.index(_ARENA_OUTCOMES[word][0]) for word in winners], dtype=np.int8)
    return _from_two_columns(table, found, outcome, np.array([_ARENA_OUTCOMES[word][1] for word in winners], np.int8))


def _from_two_columns(table: pd.DataFrame, found: Mapping[str, str], outcome: Integers, position: Integers) -> Votes:
    pairs = [
        f"{a}{SEPARATOR}{b}" for a, b in zip(*(_text(table, found[side]) for side in ("first", "second")), strict=True)
    ]
    methods, shown = _shown_codes(pairs)
    participants, participant = _names(table, found["participant"])
    images, image = _names(table, found["image"])
    criteria, criterion = (
        _names(table, "criterion") if "criterion" in table else ((_ONLY_CRITERION,), np.zeros(len(table), np.int32))
    )
    return make_votes(
        participant=participant, image=image, criterion=criterion, shown=shown, outcome=outcome, position=position,
        participants=participants, images=images, criteria=criteria, methods=methods,
    )  # fmt: skip


def _find_columns(table: pd.DataFrame, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    found = {key: next((name for name in names if name in table), "") for key, names in wanted.items()}
    missing = [" or ".join(wanted[key]) for key, name in found.items() if not name]
    if missing:
        raise LoadError(
            f"The table lacks the column {', and '.join(missing)}; "
            f"it has {', '.join(map(str, table.columns)) or 'none'}."
        )
    return found


def _text(table: pd.DataFrame, column: str) -> list[str]:
    cells: list[str] = table[column].tolist()
    for row, cell in enumerate(cells):
        if cell == "" or cell.lower() == "nan":
            raise LoadError(f"Row {row + 1} has no {column}; every vote needs one.")
    return cells


def _names(table: pd.DataFrame, column: str) -> tuple[tuple[str, ...], Integers]:
    """Names in natural order (so that "10" follows "9") and each row's code."""
    cells = _text(table, column)
    names = tuple(sorted(set(cells), key=_natural_order))
    codes = {name: code for code, name in enumerate(names)}
    return names, np.array([codes[cell] for cell in cells], dtype=np.int32)


def _natural_order(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _outcome_codes(words: Sequence[str]) -> Integers:
    for row, word in enumerate(words):
        if word not in OUTCOMES:
            raise LoadError(f"Row {row + 1} has the outcome {word!r}; it must be one of {', '.join(OUTCOMES)}.")
    return np.array([OUTCOMES.index(word) for word in words], dtype=np.int8)


def _shown_codes(cells: Sequence[str]) -> tuple[tuple[str, ...], Integers]:
    """Method names and the (n, positions) codes; the few distinct sets are taken apart once each."""
    sets = {cell: _split(cell, row) for row, cell in reversed(list(enumerate(cells)))}
    methods = tuple(sorted({method for names in sets.values() for method in names}))
    width = max((len(names) for names in sets.values()), default=0)
    code = {method: index for index, method in enumerate(methods)}
    coded = {cell: [code[name] for name in names] + [NONE] * (width - len(names)) for cell, names in sets.items()}
    return methods, np.array([coded[cell] for cell in cells], dtype=np.int16).reshape(len(cells), width)


def _split(cell: str, row: int) -> tuple[str, ...]:
    names = tuple(map(str, json.loads(cell))) if cell.startswith("[") else tuple(cell.split(SEPARATOR))
    if len(set(names)) != len(names) or "" in names or len(names) == 1:
        raise LoadError(
            f"Row {row + 1} shows {cell!r}; methods_shown lists at least two different methods, "
            f"in the order of their positions, separated by {SEPARATOR!r}."
        )
    return names


def _positions(table: pd.DataFrame, shown: Integers, methods: tuple[str, ...], outcome: Integers) -> Integers:
    position = np.full(len(table), NONE, dtype=np.int8)
    chosen: list[str] | None = table["method_chosen"].tolist() if "method_chosen" in table else None
    given: list[str] | None = table["position_chosen"].tolist() if "position_chosen" in table else None
    code = {method: index for index, method in enumerate(methods)}
    for row in np.flatnonzero(outcome == OUTCOMES.index("choice")).tolist():
        by_name = None if chosen is None else _place_of(code.get(chosen[row], len(methods)), shown[row])
        by_place = None if given is None else _place(given[row])
        place = by_place if by_place is not None else by_name
        if place is None or (None not in (by_place, by_name) and by_place != by_name):
            said = (None if chosen is None else chosen[row], None if given is None else given[row])
            raise LoadError(
                f"Row {row + 1} is a choice of method {said[0]!r} at position {said[1]!r}, which does not name one of "
                "the methods shown; position_chosen counts from 0."
            )
        position[row] = place
    return position


def _place_of(method: int, shown: NDArray[np.integer]) -> int | None:
    places = np.flatnonzero(shown == method)
    return int(places[0]) if places.size else None


def _place(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _trials(table: pd.DataFrame) -> tuple[Integers, Integers]:
    n = len(table)
    if "trial_id" not in table:
        return np.arange(n, dtype=np.int32), np.full(n, NONE, dtype=np.int32)
    names, trial = _names(table, "trial_id")
    repeats: list[str] = table["is_repeat_of"].tolist() if "is_repeat_of" in table else [""] * n
    code = {name: index for index, name in enumerate(names)}
    # A repeat of a trial that is not in the table is still a repeat: it gets a code of its own beyond all trials.
    return trial, np.array([code.get(name, len(names)) if name else NONE for name in repeats], dtype=np.int32)


def _milliseconds(table: pd.DataFrame) -> Integers:
    cells: list[str] = table["rt_ms"].tolist() if "rt_ms" in table else [""] * len(table)
    times = np.full(len(table), NONE, dtype=np.int32)
    for row, cell in enumerate(cells):
        if cell:
            try:
                times[row] = round(float(cell))
            except (ValueError, OverflowError) as problem:
                raise LoadError(f"Row {row + 1} has the response time {cell!r}; rt_ms is in milliseconds.") from problem
    return times


def _used(table: pd.DataFrame) -> Booleans:
    return _flags(table, "used") if "used" in table else np.ones(len(table), dtype=np.bool_)


def _flags(table: pd.DataFrame, column: str) -> Booleans:
    cells = [cell.lower() for cell in _text(table, column)]
    for row, cell in enumerate(cells):
        if cell not in _TRUE | _FALSE:
            raise LoadError(f"Row {row + 1} has {column} = {cell!r}; write true or false.")
    return np.array([cell in _TRUE for cell in cells], dtype=np.bool_)


def _image_domains(table: pd.DataFrame, image: Integers, images: int) -> tuple[tuple[str, ...], Integers]:
    domain = np.full(images, NONE, dtype=np.int32)
    column = next((name for name in ("stratum", "domain") if name in table), None)
    if column is None:
        return (), domain
    cells: list[str] = table[column].tolist()
    domains = tuple(sorted({cell for cell in cells if cell}))
    for row, (code, cell) in enumerate(zip(image.tolist(), cells, strict=True)):
        place = domains.index(cell) if cell else NONE
        if domain[code] not in (NONE, place):
            raise LoadError(f"Row {row + 1} puts its image in the {column} {cell!r}, an earlier row in another.")
        domain[code] = place
    return domains, domain


def _refuse_duplicates(votes: Votes, *, has_trials: bool) -> None:
    """A trial answers each criterion once; without trial names, a person sees the same set on one image once."""
    keys = [votes.trial, votes.criterion]
    if not has_trials:
        keys = [votes.participant, votes.image, votes.criterion, *np.sort(votes.shown, axis=1).T]
    table = np.stack([key.astype(np.int64) for key in keys], axis=1)
    _, first, counts = np.unique(table, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        row = int(first[counts > 1][0])
        raise LoadError(
            f"Row {row + 1} stands {counts.max()} times (the same "
            f"{'trial_id and criterion' if has_trials else 'participant, image, criterion and methods'}); remove the "
            "copies, or give every trial its own trial_id if the question was really put again."
        )
