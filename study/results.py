"""What the results view may see of a study, and when: how far it is always, who won how often only when allowed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import KindCode, OutcomeCode, SessionState
from study.counters import SESSION
from study.design import Design, load_design
from study.publication import VersionRow, Visibility, find_version, visibility
from study.trials import VOTE

COUNTED_KINDS = (int(KindCode.REAL),)
"""Repeats measure self-consistency; counting them would let one person vote twice on a picture."""


@dataclass(frozen=True)
class PairCount:
    """How often two methods were preferred to each other, by one criterion, over all images and both sides."""

    criterion: str
    first: str
    second: str
    first_chosen: int
    second_chosen: int
    ties: int
    cant_tell: int


@dataclass(frozen=True)
class SelectionCount:
    """How often a method was chosen as the best of all, by one criterion."""

    criterion: str
    method: str
    chosen: int
    of: int


@dataclass(frozen=True)
class StudyResults:
    """A study as the results view shows it.

    Attributes:
        visible: whether who won may be seen; while it is False the counts below are empty and `methods` too.
        why_hidden: a sentence for the page while `visible` is False, else empty.
        completed: completed sessions.
        votes: stored answers that count, over all criteria.
        pairs: for pairwise studies, in the order of the criteria and pairs.
        selections: for best-of-n studies, in the order of the criteria and methods.
    """

    slug: str
    version: int
    version_id: int
    status: str
    title: Mapping[str, str]
    sha256: str
    protocol: str
    criteria: Mapping[str, Mapping[str, str]]
    visible: bool
    why_hidden: str
    completed: int
    votes: int
    methods: tuple[str, ...]
    pairs: tuple[PairCount, ...]
    selections: tuple[SelectionCount, ...]


def study_results(db: Session, slug: str) -> StudyResults:
    """The results of the version of a study that visitors see.

    Raises:
        study.service.RefusedError: for a study that was never launched.
    """
    row = find_version(db, slug)
    design = load_design(db, row.id)
    return _results(db, row, design, visible=visibility(db, row.id) is Visibility.OPEN)


def aliased_results(db: Session, slug: str) -> StudyResults:
    """The results as the researcher may see them: under aliases once the study is closed, until it is unblinded.

    Raises:
        study.service.RefusedError: for a study that was never launched.
    """
    row = find_version(db, slug)
    design = load_design(db, row.id)
    seen = visibility(db, row.id)
    if seen is Visibility.ALIASED:
        wearing = tuple(replace(method, key=method.alias) for method in design.methods)
        design = replace(design, methods=tuple(sorted(wearing, key=lambda method: (len(method.key), method.key))))
    return _results(db, row, design, visible=seen is not Visibility.HIDDEN)


def _results(db: Session, row: VersionRow, design: Design, *, visible: bool) -> StudyResults:
    pairwise = design.definition.protocol == "pairwise"
    completed = db.execute(
        select(func.count())
        .select_from(SESSION)
        .where(SESSION.c.version_id == row.id, SESSION.c.state == SessionState.COMPLETED)
    ).scalar_one()
    votes = db.execute(
        select(func.count())
        .select_from(VOTE)
        .where(VOTE.c.version_id == row.id, VOTE.c.used == 1, VOTE.c.kind.in_(COUNTED_KINDS))
    ).scalar_one()
    return StudyResults(
        slug=design.slug,
        version=row.version,
        version_id=row.id,
        status=row.status.value,
        title=design.definition.title,
        sha256=design.sha256,
        protocol=design.definition.protocol,
        criteria={criterion.key: criterion.title for criterion in design.definition.criteria},
        visible=visible,
        why_hidden="" if visible else "The results of this study are shown when it is closed and unblinded.",
        completed=completed,
        votes=votes,
        methods=tuple(method.key for method in design.methods) if visible else (),
        pairs=_pair_counts(db, design) if visible and pairwise else (),
        selections=_selection_counts(db, design) if visible and not pairwise else (),
    )


def _pair_counts(db: Session, design: Design) -> tuple[PairCount, ...]:
    seen: dict[tuple[int, int, int, int | None, int], int] = {}
    rows = db.execute(
        select(
            VOTE.c.criterion,
            VOTE.c.first_method_id,
            VOTE.c.second_method_id,
            VOTE.c.chosen_method_id,
            VOTE.c.outcome,
            func.count().label("n"),
        )
        .where(VOTE.c.version_id == design.version_id, VOTE.c.used == 1, VOTE.c.kind.in_(COUNTED_KINDS))
        .group_by(
            VOTE.c.criterion,
            VOTE.c.first_method_id,
            VOTE.c.second_method_id,
            VOTE.c.chosen_method_id,
            VOTE.c.outcome,
        )
    )
    for row in rows:
        low, high = sorted((row.first_method_id, row.second_method_id))
        place = (row.criterion, low, high, row.chosen_method_id, row.outcome)
        seen[place] = seen.get(place, 0) + row.n
    keys = {method.id: method.key for method in design.methods}
    return tuple(
        PairCount(
            criterion=criterion.key,
            first=keys[low],
            second=keys[high],
            first_chosen=seen.get((number, low, high, low, OutcomeCode.CHOICE), 0),
            second_chosen=seen.get((number, low, high, high, OutcomeCode.CHOICE), 0),
            ties=seen.get((number, low, high, None, OutcomeCode.TIE), 0),
            cant_tell=seen.get((number, low, high, None, OutcomeCode.CANT_TELL), 0),
        )
        for number, criterion in enumerate(design.definition.criteria)
        for low, high in design.pairs
    )


def _selection_counts(db: Session, design: Design) -> tuple[SelectionCount, ...]:
    rows = db.execute(
        select(VOTE.c.criterion, VOTE.c.chosen_method_id, func.count().label("n"))
        .where(VOTE.c.version_id == design.version_id, VOTE.c.used == 1, VOTE.c.kind.in_(COUNTED_KINDS))
        .group_by(VOTE.c.criterion, VOTE.c.chosen_method_id)
    )
    chosen = {(row.criterion, row.chosen_method_id): row.n for row in rows}
    return tuple(
        SelectionCount(
            criterion=criterion.key,
            method=method.key,
            chosen=chosen.get((number, method.id), 0),
            of=sum(n for (asked, _), n in chosen.items() if asked == number),
        )
        for number, criterion in enumerate(design.definition.criteria)
        for method in design.methods
    )
