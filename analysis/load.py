"""Votes of one study from its database: the fact table `analysis_vote`, in whole numbers, read in bulk.

Above MANY_VOTES rows the database groups by what the covering index is ordered by, packs the other columns of a row
into one whole number and joins those of a group to one text, the images divided among threads: fetching a million rows
one by one takes ten times as long (benchmarks/analysis_speed.py).
"""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from itertools import product

import numpy as np
from sqlalchemy import BigInteger, ColumnElement, Integer, String, cast, func, literal_column, select, type_coerce
from sqlalchemy.orm import Session

from analysis.votes import CHOICE, NONE, OUTCOMES, PAIR, Integers, Votes, VotesError, make_votes
from db.engine import Database
from db.models import (
    AnalysisVote,
    Cell,
    Image,
    KindCode,
    Method,
    Participant,
    Rendition,
    SlotRole,
    Study,
    StudyVersion,
    Trial,
    TrialKind,
    TrialSlot,
)

MANY_VOTES = 50_000
"""From here on the packed query is faster than fetching rows (measured)."""

PACKED_BITS = 62
"""What a database's whole number holds, without its sign."""

FEWEST_IMAGES_PER_THREAD = 8
"""Below this, starting another thread costs more than it gains (our choice)."""

MOST_POSITIONS = 64
"""More methods side by side than anybody can compare (a definition allows 12)."""

SMALL_CODES = 2**15
"""Names that a 16-bit code can count."""

INT32_BITS = 31

WIDEST_TABLE = 2**24
"""Row ids further apart are looked up by search instead of in a table."""

SEPARATOR = ","

GROUPED = ("kind", "used", "criterion", "image")
"""The order of the covering index: rows of a group stand together in it, so grouping costs nothing and each of these
columns is said once per group instead of once per row."""

_COMPARED = (KindCode.REAL, KindCode.REPEAT)


class StudyNotFoundError(VotesError):
    """The database holds no study, or no version of it, by that name."""


class UnreadableVotesError(VotesError):
    """Rows of the database contradict each other."""


def load_votes(database_url: str, study_slug: str, *, version: int | None = None, details: bool = True) -> Votes:
    """Every answer about methods (real and repeated trials) of one version of a study.

    Answers given under different definitions are never pooled. Rows an exclusion rule took out are there with
    `used` False. Participants are named by their number in the database.

    Args:
        database_url: `sqlite:///...` or `postgresql://...`; opened for reading only, beside a running app.
        study_slug: the study's permanent name.
        version: which definition; the newest by default.
        details: also read trials, repeats and response times, which rates and rankings do not need; without them a
            million votes load in half the time, and repeated trials are left out.

    Raises:
        DatabaseError: when the database cannot be opened.
        StudyNotFoundError: for an unknown study or version, naming those there are.
        UnreadableVotesError: when rows contradict each other.
    """
    with Database.open(database_url, read_only=True) as database:
        with database.read() as session:
            names = _read_names(session, study_slug, version)
            fields = _read_fields(session, names, details=details)
            repeats = _read_repeats(session, names.version_id) if details else {}
            best_of_n = any(field.name == "rotation" for field in fields)
            orders = _read_orders(session, names) if best_of_n else {}
        columns = _read_columns(database, names, fields, details=details)
    return _assemble(names, columns, repeats, orders)


@dataclass(frozen=True)
class _Names:
    """The small tables of one version: ids in ascending order beside what they are called."""

    version_id: int
    criteria: tuple[str, ...]
    method_ids: Integers
    methods: tuple[str, ...]
    image_ids: Integers
    images: tuple[str, ...]
    strata: tuple[str, ...]
    participant_ids: Integers


@dataclass(frozen=True)
class _Field:
    """A column of the query and the whole numbers it can take, from `least` (which may stand for NULL) to `most`."""

    name: str
    column: ColumnElement[int]
    least: int
    most: int
    expected: bool = True
    """NULL would be an error: packed reading counts rows instead of asking each one."""

    @property
    def filled(self) -> ColumnElement[int]:
        """The column, with `least` where there is nothing."""
        return self.column if self.expected else func.coalesce(self.column, self.least)

    @property
    def bits(self) -> int:
        """How many a value takes, counted from `least`; whole bits, because shifting is cheaper than dividing."""
        return (self.most - self.least).bit_length()


def _read_names(session: Session, slug: str, version: int | None) -> _Names:
    found = session.execute(
        select(StudyVersion.id, StudyVersion.version, StudyVersion.spec_json)
        .join(Study, Study.id == StudyVersion.study_id)
        .where(Study.slug == slug)
        .order_by(StudyVersion.version)
    ).all()
    if not found:
        slugs = session.scalars(select(Study.slug).order_by(Study.slug)).all()
        raise StudyNotFoundError(f"There is no study {slug!r} in this database; it has: {', '.join(slugs) or 'none'}.")
    chosen = next((row for row in reversed(found) if version in (None, row.version)), None)
    if chosen is None:
        known = ", ".join(str(row.version) for row in found)
        raise StudyNotFoundError(f"The study {slug!r} has no version {version}; it has: {known}.")
    methods = session.execute(
        select(Method.id, Method.key).where(Method.version_id == chosen.id).order_by(Method.id)
    ).all()
    images = session.execute(
        select(Image.id, Image.key, Image.stratum).where(Image.version_id == chosen.id).order_by(Image.id)
    ).all()
    people = session.scalars(
        select(Participant.id).where(Participant.version_id == chosen.id).order_by(Participant.id)
    ).all()
    return _Names(
        version_id=chosen.id,
        criteria=tuple(str(criterion["key"]) for criterion in json.loads(chosen.spec_json)["criteria"]),
        method_ids=np.array([row.id for row in methods], dtype=np.int64),
        methods=tuple(row.key for row in methods),
        image_ids=np.array([row.id for row in images], dtype=np.int64),
        images=tuple(row.key for row in images),
        strata=tuple(row.stratum for row in images),
        participant_ids=np.array(people, dtype=np.int64),
    )


def _read_fields(session: Session, names: _Names, *, details: bool) -> list[_Field]:
    """The columns wanted, densest packing first decided here: a study is pairwise or best of N, never both."""
    vote = AnalysisVote
    fields = [
        _id_field("participant", vote.participant_id, names.participant_ids),
        _id_field("image", vote.image_id, names.image_ids),
        _Field("criterion", _whole(vote.criterion), 0, len(names.criteria)),
        _Field("used", _whole(vote.used), 0, 1),
        _Field("kind", _whole(vote.kind), 0, len(KindCode)),
        # A choice's position, or below NONE the outcome that has none.
        _Field("answer", func.coalesce(vote.position, NONE - vote.outcome), NONE - len(OUTCOMES), MOST_POSITIONS),
    ]
    if session.scalar(select(Cell.id).where(Cell.version_id == names.version_id, Cell.rotation.is_not(None)).limit(1)):
        # An odd Williams square has 2N orders.
        fields.append(_Field("rotation", _whole(vote.rotation), NONE, 2 * MOST_POSITIONS, expected=False))
    else:
        fields.append(_id_field("first", vote.first_method_id, names.method_ids))
        fields.append(_id_field("second", vote.second_method_id, names.method_ids))
    if details:
        # Asked of the facts themselves: a value beyond its bits would spill into its neighbours.
        last_trial, slowest = session.execute(
            select(func.max(vote.trial_id), func.max(vote.rt_ms)).where(vote.version_id == names.version_id)
        ).one()
        fields += [
            _Field("trial", _whole(vote.trial_id), 0, last_trial or 0),
            _Field("response_ms", _whole(vote.rt_ms), NONE, slowest or 0, expected=False),
        ]
    return fields


def _whole(column: object) -> ColumnElement[int]:
    return type_coerce(column, Integer)


def _id_field(name: str, column: object, ids: Integers) -> _Field:
    """Row ids; one below the smallest is no row, so that a NULL read one by one is found out by `_places`."""
    least = int(ids.min()) - 1 if ids.size else 0
    return _Field(name, _whole(column), least, int(ids.max()) if ids.size else 0)


def _read_columns(
    database: Database, names: _Names, fields: Sequence[_Field], *, details: bool
) -> Mapping[str, Integers]:
    kinds = _COMPARED if details else (KindCode.REAL,)
    wanted = (AnalysisVote.version_id == names.version_id, AnalysisVote.kind.in_(kinds))
    groups = _packable([field for field in fields if field.name not in GROUPED])
    with database.read() as session:
        many = session.scalar(select(AnalysisVote.kind).where(*wanted).offset(MANY_VOTES).limit(1)) is not None
    if many and groups is not None:
        return _fetch_packed(database, names, groups, kinds)
    query = select(*(func.coalesce(field.column, field.least) for field in fields))
    with database.read() as session:
        rows = session.execute(query.where(*wanted).order_by(AnalysisVote.response_id)).all()
    table = np.array([tuple(row) for row in rows], dtype=np.int64).reshape(len(rows), len(fields))
    return {field.name: table[:, column] for column, field in enumerate(fields)}


def _packable(fields: Sequence[_Field]) -> list[list[_Field]] | None:
    """Fields in groups that fit one whole number each, or None when a single one does not."""
    groups: list[list[_Field]] = [[]]
    for field in fields:
        if field.bits > PACKED_BITS:
            return None
        if sum(other.bits for other in groups[-1]) + field.bits > PACKED_BITS:
            groups.append([])
        groups[-1].append(field)
    return groups


def _fetch_packed(
    database: Database, names: _Names, groups: Sequence[Sequence[_Field]], kinds: Sequence[KindCode]
) -> Mapping[str, Integers]:
    """One text per kind, use, criterion and image; all numbers of a row stand together, so rows cannot be mixed up.

    Raises:
        UnreadableVotesError: when a column that every answer has is NULL somewhere.
    """
    packed = _joined([_packed(group, database.dialect) for group in groups], database.dialect)
    vote = AnalysisVote

    keys = (vote.kind, vote.used, vote.criterion, vote.image_id)
    if database.dialect == "sqlite":  # with every column before the image fixed, it jumps to the range of images
        stretches = [
            (vote.kind == kind, vote.used == used, vote.criterion == criterion)
            for kind, used, criterion in product(kinds, (0, 1), range(len(names.criteria)))
        ]
    else:
        stretches = [(vote.kind.in_(kinds),)]

    def read(images: Integers) -> Mapping[str, Integers]:
        parts: list[_Part] = []
        with database.read() as session:
            for stretch in stretches:
                query = select(*keys, func.count(), packed).where(vote.version_id == names.version_id, *stretch)
                between = vote.image_id.between(int(images[0]), int(images[-1]))
                for *key, count, text in session.execute(query.where(between).group_by(*keys)):
                    parts.append(_Part(tuple(map(int, key)), count, text or ""))
        return _unpack_parts(parts, groups)

    threads = max(1, min(os.cpu_count() or 1, names.image_ids.size // FEWEST_IMAGES_PER_THREAD))
    # Two pieces for each thread: while one is taken apart, the database packs the next.
    pieces = np.array_split(names.image_ids, 2 * threads if threads > 1 else 1)
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(read, pieces))
    return {name: np.concatenate([columns[name] for columns in found]) for name in found[0]}


@dataclass(frozen=True)
class _Part:
    """The answers of one group: its key in the order of GROUPED, how many, and their numbers."""

    key: tuple[int, ...]
    count: int
    text: str


def _unpack_parts(parts: Sequence[_Part], groups: Sequence[Sequence[_Field]]) -> Mapping[str, Integers]:
    text = SEPARATOR.join(part.text for part in parts if part.text)
    numbers = np.fromstring(text, dtype=np.int64, sep=SEPARATOR).reshape(-1, len(groups))
    counts = [part.count for part in parts]
    if sum(counts) != len(numbers):
        raise UnreadableVotesError(
            f"{sum(counts) - len(numbers)} of {sum(counts)} answers lack a value that every answer has (who answered, "
            "or which methods were shown); run `python -m study verify` on this database."
        )
    columns: dict[str, Integers] = {}
    for place, group in enumerate(groups):
        columns |= _unpacked(numbers[:, place], group)
    for place, name in enumerate(GROUPED):
        columns[name] = np.repeat(np.array([part.key[place] for part in parts], dtype=np.int32), counts)
    return columns


def _packed(fields: Sequence[_Field], dialect: str) -> ColumnElement[int]:
    """The fields beside one another; factors and the sum of what stands for zero are constants of the query."""
    # Row ids are 64 bits wide on SQLite anyway; PostgreSQL must be told, or a product of narrow columns overflows.
    number = cast(fields[0].filled, BigInteger) if dialect != "sqlite" else fields[0].filled
    zero = fields[0].least
    for field in fields[1:]:
        number = number * literal_column(str(2**field.bits)) + field.filled
        zero = zero * 2**field.bits + field.least
    return number - literal_column(f"({zero})")


def _joined(numbers: Sequence[ColumnElement[int]], dialect: str) -> ColumnElement[str]:
    texts = [cast(number, String) for number in numbers]
    row = reduce(lambda text, more: text + literal_column(f"'{SEPARATOR}'", String) + more, texts)
    if dialect == "sqlite":
        # Its own separator is the comma, and one given as a parameter makes this three times as slow (measured).
        return func.group_concat(row if len(texts) > 1 else numbers[0])
    return func.string_agg(row, SEPARATOR)


def _unpacked(numbers: Integers, fields: Sequence[_Field]) -> Mapping[str, Integers]:
    columns: dict[str, Integers] = {}
    for field in reversed(fields):
        rest = (numbers & (2**field.bits - 1)).astype(np.int32 if field.bits < INT32_BITS else np.int64)
        columns[field.name] = rest + rest.dtype.type(field.least)
        numbers = numbers >> field.bits
    return columns


def _read_repeats(session: Session, version_id: int) -> Mapping[int, int]:
    rows = session.execute(
        select(Trial.id, Trial.repeat_of_id).where(Trial.version_id == version_id, Trial.kind == TrialKind.REPEAT)
    )
    return {row.id: row.repeat_of_id for row in rows}


def _read_orders(session: Session, names: _Names) -> Mapping[int, list[int]]:
    """Which method stood where in each order of a best-of-N study, read from one trial of that order."""
    vote = AnalysisVote
    example = (
        select(vote.rotation, func.min(vote.trial_id).label("trial_id"))
        .where(vote.version_id == names.version_id, vote.kind == KindCode.REAL, vote.rotation.is_not(None))
        .group_by(vote.rotation)
        .subquery()
    )
    rows = session.execute(
        select(example.c.rotation, Rendition.method_id)
        .join(TrialSlot, TrialSlot.trial_id == example.c.trial_id)
        .join(Rendition, Rendition.id == TrialSlot.rendition_id)
        .where(TrialSlot.role == SlotRole.CANDIDATE, Rendition.method_id.is_not(None))
        .order_by(example.c.rotation, TrialSlot.position)
    )
    orders: dict[int, list[int]] = {}
    for row in rows:
        orders.setdefault(int(row.rotation), []).append(int(row.method_id))
    return orders


def _assemble(
    names: _Names, columns: Mapping[str, Integers], repeats: Mapping[int, int], orders: Mapping[int, list[int]]
) -> Votes:
    n = columns["participant"].size
    answer = columns["answer"]
    present = np.flatnonzero(np.bincount(_places(columns["participant"], names.participant_ids)))
    people = names.participant_ids[present]
    domains = tuple(sorted({stratum for stratum in names.strata if stratum}))
    return make_votes(
        participant=_places(columns["participant"], people),
        image=_places(columns["image"], names.image_ids),
        criterion=columns["criterion"].astype(np.int8),
        shown=_shown(names, columns, orders),
        outcome=np.where(answer >= 0, CHOICE, NONE - answer).astype(np.int8),
        position=np.where(answer >= 0, answer, NONE).astype(np.int8),
        trial=columns.get("trial", np.arange(n)),
        repeat_of=_repeat_of(columns, repeats),
        response_ms=columns.get("response_ms"),
        used=columns["used"] == 1,
        domain=np.array([domains.index(s) if s else NONE for s in names.strata], dtype=np.int32),
        participants=tuple(map(str, people.tolist())),
        images=names.images,
        criteria=names.criteria,
        methods=names.methods,
        domains=domains,
    )


def _shown(names: _Names, columns: Mapping[str, Integers], orders: Mapping[int, list[int]]) -> Integers:
    if "first" in columns:
        return np.stack([_places(columns[side], names.method_ids) for side in ("first", "second")], axis=1)
    rotation = columns["rotation"]
    unknown = sorted(set(np.unique(rotation).tolist()) - set(orders))
    if unknown:
        raise UnreadableVotesError(
            f"Answers name the order {unknown[0]}, but no trial says which methods that order shows."
        )
    width = max(map(len, orders.values()), default=PAIR)
    table = np.full((max(orders, default=0) + 1, width), NONE, dtype=np.int16)
    for order, methods in orders.items():
        table[order, : len(methods)] = _places(np.array(methods), names.method_ids)
    return table[rotation]


def _places(ids: Integers, known: Integers) -> Integers:
    """Codes of row ids: their place among the known ones, which are in ascending order."""
    if not ids.size:
        return np.zeros(0, dtype=np.int32)
    dtype = np.int16 if known.size < SMALL_CODES else np.int32
    least, most = (int(known[0]), int(known[-1])) if known.size else (0, -1)
    if known.size and most - least < WIDEST_TABLE and least <= int(ids.min()) and int(ids.max()) <= most:
        table = np.full(most - least + 1, NONE, dtype=dtype)
        table[known - least] = np.arange(known.size)
        places = table[ids - least]
    else:
        places = np.searchsorted(known, ids)
        found = np.append(known, NONE)[places] == ids
        places = np.where(found, places, NONE).astype(dtype)
    strange = np.flatnonzero(places == NONE)
    if strange.size:
        raise UnreadableVotesError(f"An answer points to row {ids[strange[0]]}, which this version does not have.")
    return places


def _repeat_of(columns: Mapping[str, Integers], repeats: Mapping[int, int]) -> Integers | None:
    if "kind" not in columns or not repeats:
        return None
    repeat_of = np.full(columns["kind"].size, NONE, dtype=np.int64)
    for row in np.flatnonzero(columns["kind"] == KindCode.REPEAT).tolist():
        repeat_of[row] = repeats[int(columns["trial"][row])]
    return repeat_of
