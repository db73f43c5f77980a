"""The raw answers as tables, deterministic: the same study gives the same bytes, from SQLite and from PostgreSQL.

Five tables, each as CSV, Parquet and JSON, with the definition, a codebook, the flow of participants and a manifest of
hashes. Methods wear their aliases until the study is unblinded. What a participant had erased is in none of them.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import models
from db.base import Base
from db.revision import HEAD
from study import quality
from study.codebook import LIST_SEPARATOR, SESSIONS, TABLES, VOTES, Column, codebook
from study.counters import SESSION, TRIAL
from study.design import EVERY_QUESTION, IMAGE, RENDITION, Design, load_design
from study.publication import Visibility, find_version, launched_versions, visibility
from study.service import RefusedError
from study.trials import RESPONSE, SLOT, VOTE

PARTICIPANT = Base.metadata.tables["participant"]
CONSENT = Base.metadata.tables["consent"]
EXCLUSION = Base.metadata.tables["exclusion"]
EVENT = Base.metadata.tables["event"]
WITHDRAWAL = Base.metadata.tables["withdrawal"]

MICROSECOND, MILLISECOND = 1_000_000, 1_000
"""Microseconds in a second and in a millisecond; the database counts in microseconds."""

Row = dict[str, Any]
"""One row of a table: values by column name, None where there is nothing."""

_ARROW: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "whole": pa.int64(),
    "number": pa.float64(),
    "yes_no": pa.bool_(),
    "time": pa.string(),
}


@dataclass(frozen=True)
class Export:
    """A study's version as it leaves the database.

    Attributes:
        tables: rows by table name, in the order of `study.codebook.TABLES`.
        blind: whether methods wear their aliases, because the study is not unblinded.
        flow: `study.quality.Flow` as plain data, and how many votes there are.
    """

    design: Design
    blind: bool
    tables: Mapping[str, tuple[Row, ...]]
    flow: Mapping[str, Any]


def public_votes_csv(db: Session, slug: str) -> str:
    """The votes of the version that visitors see, for everybody.

    Raises:
        RefusedError: while its results are hidden.
    """
    row = find_version(db, slug)
    if visibility(db, row.id) is not Visibility.OPEN:
        raise RefusedError("not_public", "The results of this study are shown when it is closed and unblinded.")
    return _csv(VOTES, read_export(db, row.id).tables["votes"])


def read_export(db: Session, version_id: int) -> Export:
    """Everything about a version that may leave the database now.

    Raises:
        RefusedError: while its results are hidden even under aliases: the study is not closed.
    """
    seen = visibility(db, version_id)
    if seen is Visibility.HIDDEN:
        raise RefusedError("not_public", "The answers of this study are hidden until it is closed; close it first.")
    reader = _Reader(db, load_design(db, version_id), blind=seen is Visibility.ALIASED)
    tables = {
        "votes": tuple(reader.votes()),
        "sessions": tuple(reader.sessions()),
        "trials": tuple(reader.trials()),
        "exclusions": tuple(reader.exclusions()),
        "events": tuple(reader.events()),
    }
    votes = {
        "votes": len(tables["votes"]),
        "votes_in_primary_set": sum(vote["in_primary_set"] for vote in tables["votes"]),
    }
    return Export(reader.design, reader.blind, tables, asdict(quality.flow(db, version_id)) | votes)


def find_launched(db: Session, slug: str, version: int | None = None) -> int:
    """The row id of a launched version of a study: the one asked for, else the one visitors see.

    Raises:
        RefusedError: when there is none, naming those there are.
    """
    if version is None:
        return int(find_version(db, slug).id)
    versions = launched_versions(db, slug)
    if version not in versions:
        known = ", ".join(map(str, sorted(versions))) or "none"
        raise RefusedError("unknown_study", f"{slug!r} has no launched version {version} (there are: {known}).")
    return versions[version]


def votes_csv(export: Export) -> str:
    """The votes as CSV text with a header."""
    return _csv(VOTES, export.tables["votes"])


def export_files(
    export: Export, *, beside: Mapping[str, bytes] | None = None, commit: str | None = None
) -> dict[str, bytes]:
    """Every file of the export by name, the manifest last.

    Args:
        export: of one version.
        beside: more files to put in and to vouch for, as of `study.adapters`.
        commit: of the program's source, for the manifest.
    """
    files: dict[str, bytes] = dict(beside or {})
    for table, columns in TABLES.items():
        rows = export.tables[table]
        files[f"{table}.csv"] = _csv(columns, rows).encode()
        files[f"{table}.parquet"] = _parquet(columns, rows)
        files[f"{table}.json"] = _json(list(rows))
    definition = export.design.definition
    told = codebook(definition)
    if export.blind:
        told["methods"] = sorted(({"key": each.alias} for each in export.design.methods), key=lambda each: each["key"])
    plain = definition.model_dump(mode="json")
    files["study.yaml"] = yaml.safe_dump(plain, allow_unicode=True, sort_keys=True, width=100).encode()
    files["codebook.json"] = _json(told)
    files["flow.json"] = _json(export.flow)
    manifest = {
        "study": export.design.slug,
        "version": export.design.version,
        "spec_sha256": export.design.sha256,
        "blind": export.blind,
        "schema_revision": HEAD,
        "commit": commit,
        "rows": {table: len(rows) for table, rows in export.tables.items()},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }
    files["manifest.json"] = _json(manifest)
    return files


def write_export(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of an export; the manifest last, so that a folder with one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    for name, content in files.items():
        unfinished = folder / f"{name}.part"
        unfinished.write_bytes(content)
        unfinished.replace(folder / name)


# ------------------------------------------------------------------------------------------------- reading


class _Reader:
    """The rows of one version; small tables are held, answers and events are read once in their order."""

    def __init__(self, db: Session, design: Design, *, blind: bool) -> None:
        self.design = design
        self.blind = blind
        self._db = db
        erased = select(WITHDRAWAL.c.session_id).where(WITHDRAWAL.c.scope == models.WithdrawalScope.ERASE)
        self._of_version = (
            (SESSION.c.version_id == design.version_id) & SESSION.c.is_test.is_(False) & SESSION.c.id.not_in(erased)
        )
        people = select(PARTICIPANT.c.id).where(PARTICIPANT.c.version_id == design.version_id)
        self._people = {
            person: number for number, person in enumerate(db.scalars(people.order_by(PARTICIPANT.c.id)), start=1)
        }
        images = select(IMAGE.c.id, IMAGE.c.key, IMAGE.c.stratum).where(IMAGE.c.version_id == design.version_id)
        self._images = {row.id: row for row in db.execute(images)}
        self._shown = self._read_shown()
        self._public = {row.id: row.public_id for row in db.execute(self._joined(TRIAL.c.id, TRIAL.c.public_id))}
        self._broken = _Rules(db)

    def votes(self) -> Iterator[Row]:
        """One row per answered trial and criterion."""
        order = {criterion.key: number for number, criterion in enumerate(self.design.definition.criteria)}
        query = (
            self._joined(
                RESPONSE,
                *(TRIAL.c[name].label(f"trial_{name}") for name in _TRIAL_COLUMNS),
                *(SESSION.c[name].label(f"session_{name}") for name in _SESSION_COLUMNS),
                PARTICIPANT.c.source,
                VOTE.c.used,
            )
            .join(RESPONSE, RESPONSE.c.trial_id == TRIAL.c.id)
            .join(PARTICIPANT, PARTICIPANT.c.id == SESSION.c.participant_id)
            .join(VOTE, VOTE.c.response_id == RESPONSE.c.id, isouter=True)
        )

        def place(row: Any) -> tuple[int, int, int]:
            return row.session_id, row.trial_seq, order.get(row.criterion, len(order))

        found = sorted(self._db.execute(query), key=place)
        primary = _primary_set(found, self.design.cell_target)
        return (self._vote(row, in_primary_set=row.id in primary) for row in found)

    def sessions(self) -> Iterator[Row]:
        """One row per session."""
        answered = (
            select(TRIAL.c.session_id, func.count().label("n"))
            .where(TRIAL.c.version_id == self.design.version_id, TRIAL.c.answered_at.is_not(None))
            .group_by(TRIAL.c.session_id)
            .subquery()
        )
        query = (
            select(SESSION, PARTICIPANT.c.source, CONSENT.c.doc_sha256, answered.c.n)
            .join(PARTICIPANT, PARTICIPANT.c.id == SESSION.c.participant_id)
            .join(CONSENT, CONSENT.c.session_id == SESSION.c.id, isouter=True)
            .join(answered, answered.c.session_id == SESSION.c.id, isouter=True)
            .where(self._of_version)
            .order_by(SESSION.c.id)
        )
        for row in self._db.execute(query):
            values = {
                "session_id": row.public_id,
                "participant_no": self._people[row.participant_id],
                "source": row.source,
                "locale": row.locale,
                "state": row.state.value,
                "created_at": _seconds(row.created_at),
                "ended_at": _seconds(row.ended_at),
                "duration_s": None if row.ended_at is None else (row.ended_at - row.created_at) // MICROSECOND,
                "viewport": f"{row.css_width}x{row.css_height}" if row.css_width else None,
                "dpr": row.pixel_ratio,
                "device": row.device_class,
                "browser": row.browser_family,
                "consent_sha256": row.doc_sha256,
                "trials_answered": row.n or 0,
                "accepted": not self._broken.of_session(row.id, models.ExclusionEffect.ACCEPT),
                "used": not self._broken.of_session(row.id, models.ExclusionEffect.USE),
            }
            yield {column.name: values[column.name] for column in SESSIONS}

    def trials(self) -> Iterator[Row]:
        """One row per trial that was issued."""
        query = self._joined(TRIAL, SESSION.c.public_id.label("session")).order_by(TRIAL.c.session_id, TRIAL.c.seq)
        for row in self._db.execute(query):
            yield {
                "trial_id": row.public_id,
                "session_id": row.session,
                "seq": row.seq,
                "kind": row.kind.value,
                "image_key": self._images[row.image_id].key,
                "methods_shown": self._shown.get(row.id, []),
                "state": row.state.value,
                "is_repeat_of": self._public.get(row.repeat_of_id),
                "assign_algo": row.assign_algo,
                "propensity": row.propensity,
                "issued_at": _seconds(row.issued_at),
                "shown_at": _seconds(row.shown_at),
                "answered_at": _seconds(row.answered_at),
            }

    def exclusions(self) -> Iterator[Row]:
        """One row per decision, those undone and those undoing included."""
        about = {
            row.id: row
            for row in self._db.execute(
                self._joined(RESPONSE.c.id, RESPONSE.c.criterion, TRIAL.c.public_id, SESSION.c.public_id.label("whose"))
                .join(RESPONSE, RESPONSE.c.trial_id == TRIAL.c.id)
                .join(EXCLUSION, EXCLUSION.c.response_id == RESPONSE.c.id)
            )
        }
        sessions = {row.id: row.public_id for row in self._db.execute(self._all_sessions())}
        numbers: dict[int, int] = {}
        for row in self._db.execute(select(EXCLUSION).order_by(EXCLUSION.c.id)):
            answer = about.get(row.response_id)
            if answer is None and row.session_id not in sessions:
                continue
            numbers[row.id] = len(numbers) + 1
            yield {
                "no": numbers[row.id],
                "session_id": sessions[row.session_id] if answer is None else answer.whose,
                "trial_id": None if answer is None else answer.public_id,
                "criterion": None if answer is None else answer.criterion,
                "rule": row.rule_key,
                "rule_sha256": row.rule_sha256,
                "effect": row.effect.value,
                "evidence": row.evidence_json,
                "actor": row.actor,
                "at": _seconds(row.at),
                "reverses": numbers.get(row.reverses_id),
            }

    def events(self) -> Iterator[Row]:
        """What the pages reported, in order of arrival within each session."""
        query = (
            select(EVENT, SESSION.c.public_id.label("session"), SESSION.c.created_at)
            .join(SESSION, SESSION.c.id == EVENT.c.session_id)
            .where(self._of_version)
            .order_by(EVENT.c.session_id, EVENT.c.id)
        )
        first: dict[int, int] = {}
        for row in self._db.execute(query):
            began = first.setdefault(row.session_id, row.t_client)
            yield {
                "session_id": row.session,
                "trial_id": self._public.get(row.trial_id),
                "type": row.type.value,
                "client_ms": (row.t_client - began) // MILLISECOND,
                "server_ms": (row.t_server - row.created_at) // MILLISECOND,
                "value": row.value,
            }

    def _vote(self, row: Any, *, in_primary_set: bool) -> Row:
        image = self._images[row.trial_image_id]
        shown = self._shown.get(row.trial_id, [])
        tested = row.trial_gold_criterion in {row.criterion, EVERY_QUESTION}
        return {
            "study": self.design.slug,
            "version": self.design.version,
            "spec_sha256": self.design.sha256,
            "session_id": row.session_public_id,
            "participant_no": self._people[row.session_participant_id],
            "source": row.source,
            "locale": row.session_locale,
            "trial_id": row.trial_public_id,
            "seq": row.trial_seq,
            "kind": row.trial_kind.value,
            "image_key": image.key,
            "stratum": image.stratum,
            "criterion": row.criterion,
            "protocol": self.design.definition.protocol,
            "methods_shown": shown,
            "position_chosen": row.position,
            "method_chosen": None if row.position is None else shown[row.position],
            "outcome": row.outcome.value,
            "is_repeat_of": self._public.get(row.trial_repeat_of_id),
            "gold_correct": row.position == row.trial_gold_position if tested else None,
            **{name: getattr(row, name) for name in _AS_STORED},
            "viewport": f"{row.session_css_width}x{row.session_css_height}" if row.session_css_width else None,
            "dpr": row.session_pixel_ratio,
            "assign_algo": row.trial_assign_algo,
            "propensity": row.trial_propensity,
            "issued_at": _seconds(row.trial_issued_at),
            "answered_at": _seconds(row.answered_at),
            "used": bool(row.used),
            "exclusion_rules": self._broken.of_answer(row.session_id, row.id),
            "in_primary_set": in_primary_set,
            "session_state": row.session_state.value,
        }

    def _joined(self, *columns: Any) -> Any:
        """Trials with their sessions, of this version's sessions that count."""
        return (
            select(*columns)
            .select_from(TRIAL)
            .join(SESSION, SESSION.c.id == TRIAL.c.session_id)
            .where(self._of_version)
        )

    def _all_sessions(self) -> Any:
        return select(SESSION.c.id, SESSION.c.public_id).where(self._of_version)

    def _read_shown(self) -> dict[int, list[str]]:
        """What stood at each position: a method, or the variant of a gold picture."""
        names = {method.id: method.alias if self.blind else method.key for method in self.design.methods}
        shown: dict[int, list[str]] = {}
        query = (
            self._joined(SLOT.c.trial_id, RENDITION.c.method_id, RENDITION.c.kind, RENDITION.c.variant)
            .join(SLOT, SLOT.c.trial_id == TRIAL.c.id)
            .join(RENDITION, RENDITION.c.id == SLOT.c.rendition_id)
            .where(SLOT.c.role == models.SlotRole.CANDIDATE)
            .order_by(SLOT.c.trial_id, SLOT.c.position)
        )
        for row in self._db.execute(query):
            plain = row.kind == models.RenditionKind.OUTPUT
            name = names[row.method_id] if plain else f"{row.kind.value}:{row.variant}"
            shown.setdefault(row.trial_id, []).append(name)
        return shown


_AS_STORED = ("rt_ms", "first_input_ms", "n_changes", "zoom_ms", "flips", "hidden_ms")
_TRIAL_COLUMNS = (
    "public_id", "seq", "kind", "image_id", "cell_id", "repeat_of_id", "gold_criterion", "gold_position",
    "assign_algo", "propensity", "issued_at",
)  # fmt: skip
_SESSION_COLUMNS = (
    "id", "public_id", "participant_id", "locale", "state", "css_width", "css_height", "pixel_ratio",
)  # fmt: skip


class _Rules:
    """The exclusions in force."""

    def __init__(self, db: Session) -> None:
        undone = select(EXCLUSION.c.reverses_id).where(EXCLUSION.c.reverses_id.is_not(None))
        in_force = select(EXCLUSION).where(EXCLUSION.c.id.not_in(undone), EXCLUSION.c.reverses_id.is_(None))
        self._sessions: dict[tuple[int, models.ExclusionEffect], list[str]] = {}
        self._answers: dict[int, list[str]] = {}
        for row in db.execute(in_force.order_by(EXCLUSION.c.id)):
            if row.session_id is not None:
                self._sessions.setdefault((row.session_id, row.effect), []).append(row.rule_key)
            elif row.effect == models.ExclusionEffect.USE:
                self._answers.setdefault(row.response_id, []).append(row.rule_key)

    def of_session(self, session_id: int, effect: models.ExclusionEffect) -> list[str]:
        return self._sessions.get((session_id, effect), [])

    def of_answer(self, session_id: int, response_id: int) -> list[str]:
        broken = self.of_session(session_id, models.ExclusionEffect.USE) + self._answers.get(response_id, [])
        return sorted(set(broken))


def _primary_set(rows: Sequence[Any], target: int) -> set[int]:
    """The answers that the primary analysis reads: the first `target` valid ones per cell and criterion."""
    taken: dict[tuple[int, str], int] = {}
    chosen: set[int] = set()
    valid = [
        row
        for row in rows
        if row.trial_kind == models.TrialKind.REAL and row.used and row.session_state == models.SessionState.COMPLETED
    ]
    for row in sorted(valid, key=lambda row: (row.answered_at, row.trial_public_id)):
        cell = (row.trial_cell_id, row.criterion)
        if taken.get(cell, 0) < target:
            taken[cell] = taken.get(cell, 0) + 1
            chosen.add(row.id)
    return chosen


# ------------------------------------------------------------------------------------------------- writing


def _csv(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    for row in rows:
        writer.writerow([_cell(row[column.name]) for column in columns])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return LIST_SEPARATOR.join(value)
    return "" if value is None else value


def _parquet(columns: Sequence[Column], rows: Sequence[Row]) -> bytes:
    schema = pa.schema([pa.field(column.name, _ARROW[column.type]) for column in columns])
    arrays = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd", version="2.6")
    return sink.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _seconds(micros: int | None) -> str | None:
    if micros is None:
        return None
    return datetime.fromtimestamp(micros // MICROSECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
