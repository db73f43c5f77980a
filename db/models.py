"""The tables of the study: what is asked, who answers, what was answered, and what statistics read.

Integer keys join the tables; whatever the outside sees is an opaque random id or the SHA-256 of a token. Times are UTC
microseconds. What no constraint of a table can say (a launched definition never changes, an answer is never edited) is
kept by triggers, which live in the migrations.
"""

from enum import IntEnum, StrEnum

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.base import ROW_ID, Base, Document, Micros, Name, Ref, RowId, Sha256, one_of

# The row ids of these tables are quoted elsewhere (exclusions, exports): SQLite must never hand one out a second time.
NEVER_REUSE_IDS = {"sqlite_autoincrement": True}


class VersionStatus(StrEnum):
    """Life of one frozen definition; only a draft may change."""

    DRAFT = "draft"
    PILOT = "pilot"
    LIVE = "live"
    PAUSED = "paused"
    DRAINING = "draining"
    CLOSED = "closed"


class MethodRole(StrEnum):
    """What a method is compared as."""

    TARGET = "target"
    BASELINE = "baseline"


class RenditionKind(StrEnum):
    """What a stored picture shows; `input` is the photograph with its hole, `hole` the hole alone."""

    OUTPUT = "output"
    INPUT = "input"
    HOLE = "hole"
    ORIGINAL = "original"
    GOLD = "gold"


class SessionState(StrEnum):
    """Where one participant stands."""

    CREATED = "created"
    SCREENED = "screened"
    CONSENTED = "consented"
    PRACTISING = "practising"
    RUNNING = "running"
    COMPLETED = "completed"
    SCREENED_OUT = "screened_out"
    DECLINED = "declined"
    ABANDONED = "abandoned"
    WITHDRAWN = "withdrawn"


LIVE_SESSION_STATES = (
    SessionState.CREATED,
    SessionState.SCREENED,
    SessionState.CONSENTED,
    SessionState.PRACTISING,
    SessionState.RUNNING,
)


class TrialKind(StrEnum):
    """Why a question is put; only `real` and `repeat` are about the methods."""

    PRACTICE = "practice"
    GOLD = "gold"
    ATTENTION = "attention"
    REAL = "real"
    REPEAT = "repeat"


class TrialState(StrEnum):
    """Life of one question; an answer is taken from the first three only."""

    ISSUED = "issued"
    SHOWN = "shown"
    EXPIRED = "expired"
    ANSWERED = "answered"
    VOID = "void"


class SlotRole(StrEnum):
    """What a picture of a trial is for; candidates are numbered from 0, left to right."""

    CANDIDATE = "candidate"
    INPUT = "input"
    HOLE = "hole"
    ORIGINAL = "original"


class Outcome(StrEnum):
    """An answer: one of the positions, no visible difference, or no opinion."""

    CHOICE = "choice"
    TIE = "tie"
    CANT_TELL = "cant_tell"


class EventType(StrEnum):
    """What the page reports while a trial is looked at."""

    VISIBLE = "visible"
    HIDDEN = "hidden"
    BLUR = "blur"
    FOCUS = "focus"
    RESIZE = "resize"
    ZOOM = "zoom"
    FLIP = "flip"
    PEEK = "peek"
    DECODE = "decode"
    RETRY = "retry"
    ERROR = "error"


class ExclusionEffect(StrEnum):
    """What a broken rule takes away: payment, use in the analysis, or nothing but attention."""

    ACCEPT = "accept"
    USE = "use"
    FLAG = "flag"


class WithdrawalScope(StrEnum):
    """Stop taking part, or also erase what was answered."""

    STOP = "stop"
    ERASE = "erase"


class SignalOutcome(StrEnum):
    """What a defence made out; `unknown` when it could not be asked, which says nothing about the participant."""

    PASS = "pass"  # noqa: S105 - an outcome
    FAIL = "fail"
    UNKNOWN = "unknown"


class OutcomeCode(IntEnum):
    """`Outcome` as the narrow fact table stores it."""

    CHOICE = 0
    TIE = 1
    CANT_TELL = 2


class KindCode(IntEnum):
    """`TrialKind` as the narrow fact table stores it."""

    REAL = 0
    REPEAT = 1
    GOLD = 2
    ATTENTION = 3
    PRACTICE = 4


class Study(Base):
    """A study, by its permanent short name."""

    __tablename__ = "study"

    id: Mapped[RowId]
    slug: Mapped[Name] = mapped_column(unique=True)
    created_at: Mapped[Micros]


class StudyVersion(Base):
    """One definition of a study; immutable once it is no draft (trigger)."""

    __tablename__ = "study_version"
    __table_args__ = (
        UniqueConstraint("study_id", "version"),
        CheckConstraint("version >= 1", name="version_counts_from_one"),
        CheckConstraint("length(spec_sha256) = 64", name="spec_sha256_is_hexadecimal"),
    )

    id: Mapped[RowId]
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    version: Mapped[int]
    spec_json: Mapped[Document]
    spec_sha256: Mapped[Sha256]
    design_seed: Mapped[Sha256]  # 32 random bytes in hexadecimal: the key of every draw of this version
    status: Mapped[VersionStatus] = mapped_column(one_of(VersionStatus, "status"), default=VersionStatus.DRAFT)
    created_at: Mapped[Micros]
    launched_at: Mapped[Micros | None]
    closed_at: Mapped[Micros | None]
    unblinded_at: Mapped[Micros | None]


class Method(Base):
    """A method under comparison and the alias it wears until the study is unblinded."""

    __tablename__ = "method"
    __table_args__ = (UniqueConstraint("version_id", "key"), UniqueConstraint("version_id", "alias"))

    id: Mapped[RowId]
    version_id: Mapped[int] = mapped_column(ForeignKey("study_version.id"))
    key: Mapped[Name]
    alias: Mapped[Name]
    role: Mapped[MethodRole] = mapped_column(one_of(MethodRole, "role"))


class Image(Base):
    """A photograph with its hole, on which the methods are compared."""

    __tablename__ = "image"
    __table_args__ = (UniqueConstraint("version_id", "key"),)

    id: Mapped[RowId]
    version_id: Mapped[int] = mapped_column(ForeignKey("study_version.id"))
    key: Mapped[Name]
    source_sha256: Mapped[Sha256]
    hole_sha256: Mapped[Sha256]
    stratum: Mapped[Name] = mapped_column(default="")


class Blob(Base):
    """Stored bytes under their own hash, in the row or in a file beside the database."""

    __tablename__ = "blob"
    __table_args__ = (
        CheckConstraint("(content IS NULL) <> (path IS NULL)", name="content_or_path"),
        CheckConstraint("length > 0", name="is_not_empty"),
    )

    id: Mapped[RowId]
    sha256: Mapped[Sha256] = mapped_column(unique=True)
    length: Mapped[int]
    content: Mapped[bytes | None] = mapped_column(LargeBinary)
    path: Mapped[Name | None]


class Rendition(Base):
    """One picture of an image in the one form participants are served."""

    __tablename__ = "rendition"
    __table_args__ = (
        # NULL is never equal to NULL, so pictures without a method need an index of their own.
        Index(
            "uq_rendition_of_method",
            *("version_id", "image_id", "method_id", "kind", "variant"),
            unique=True,
            sqlite_where=text("method_id IS NOT NULL"),
            postgresql_where=text("method_id IS NOT NULL"),
        ),
        Index(
            "uq_rendition_of_image",
            *("version_id", "image_id", "kind", "variant"),
            unique=True,
            sqlite_where=text("method_id IS NULL"),
            postgresql_where=text("method_id IS NULL"),
        ),
        CheckConstraint("(kind <> 'output') OR (method_id IS NOT NULL)", name="output_has_method"),
        CheckConstraint("width > 0 AND height > 0", name="has_a_size"),
    )

    id: Mapped[RowId]
    version_id: Mapped[int] = mapped_column(ForeignKey("study_version.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"))
    method_id: Mapped[int | None] = mapped_column(ForeignKey("method.id"))
    kind: Mapped[RenditionKind] = mapped_column(one_of(RenditionKind, "kind"))
    variant: Mapped[Name] = mapped_column(
        default=""
    )  # which gold: the criterion it tests and whether it is the bad one
    blob_id: Mapped[int] = mapped_column(ForeignKey("blob.id"))
    pixel_sha256: Mapped[Sha256]
    width: Mapped[int]
    height: Mapped[int]


class Cell(Base):
    """The unit of balance: a pair on an image with its left side (pairwise), or an order of all methods (best of N).

    `side` 0 puts `method_lo` left, 1 puts it right. `n_valid`, `n_live` and `n_partial` are a cache of counts over
    `trial`; a recount must always give the same.
    """

    __tablename__ = "cell"
    __table_args__ = (
        Index(
            "uq_cell_pairwise",
            *("version_id", "image_id", "method_lo_id", "method_hi_id", "side"),
            unique=True,
            sqlite_where=text("rotation IS NULL"),
            postgresql_where=text("rotation IS NULL"),
        ),
        Index(
            "uq_cell_best_of_n",
            *("version_id", "image_id", "rotation"),
            unique=True,
            sqlite_where=text("rotation IS NOT NULL"),
            postgresql_where=text("rotation IS NOT NULL"),
        ),
        CheckConstraint(
            "(rotation IS NULL AND method_lo_id IS NOT NULL AND method_hi_id IS NOT NULL AND side IS NOT NULL"
            " AND method_lo_id < method_hi_id AND side IN (0, 1))"
            " OR (rotation IS NOT NULL AND rotation >= 0 AND method_lo_id IS NULL AND method_hi_id IS NULL"
            " AND side IS NULL)",
            name="pairwise_or_best_of_n",
        ),
        CheckConstraint("n_valid >= 0", name="n_valid_not_negative"),
        CheckConstraint("n_live >= 0", name="n_live_not_negative"),
        CheckConstraint("n_partial >= 0", name="n_partial_not_negative"),
        CheckConstraint("target >= 0", name="target_not_negative"),
    )

    id: Mapped[RowId]
    version_id: Mapped[int] = mapped_column(ForeignKey("study_version.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"))
    method_lo_id: Mapped[int | None] = mapped_column(ForeignKey("method.id"))
    method_hi_id: Mapped[int | None] = mapped_column(ForeignKey("method.id"))
    side: Mapped[int | None] = mapped_column(SmallInteger)
    rotation: Mapped[int | None]
    target: Mapped[int]
    n_valid: Mapped[int] = mapped_column(default=0)
    n_live: Mapped[int] = mapped_column(default=0)
    n_partial: Mapped[int] = mapped_column(default=0)


class Participant(Base):
    """A person, known only by a keyed hash of what the recruiting platform calls them."""

    __tablename__ = "participant"
    __table_args__ = (UniqueConstraint("version_id", "source", "ext_hmac"), NEVER_REUSE_IDS)

    id: Mapped[RowId]
    version_id: Mapped[int] = mapped_column(ForeignKey("study_version.id"))
    source: Mapped[Name]
    ext_hmac: Mapped[Sha256]
    created_at: Mapped[Micros]


class PaymentLink(Base):
    """What the recruiting platform calls a person, encrypted: read to pay them, purged afterwards, never exported."""

    __tablename__ = "payment_link"

    participant_id: Mapped[int] = mapped_column(
        ROW_ID, ForeignKey("participant.id"), primary_key=True, autoincrement=False
    )
    key_id: Mapped[Name] = mapped_column(index=True)  # the key file that opens it; without the file nobody can
    sealed: Mapped[Document]
    created_at: Mapped[Micros]


_LIVE = text("state IN ({})".format(", ".join(f"'{state.value}'" for state in LIVE_SESSION_STATES)))


class StudySession(Base):
    """One visit of a participant; a person has at most one live session (partial unique index)."""

    __tablename__ = "session"
    __table_args__ = (
        Index("uq_session_live", "participant_id", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),
        Index(None, "version_id", "state"),
        NEVER_REUSE_IDS,
    )

    id: Mapped[RowId]
    public_id: Mapped[Name] = mapped_column(unique=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("study_version.id"))
    participant_id: Mapped[int] = mapped_column(ForeignKey("participant.id"))
    token_hash: Mapped[Sha256] = mapped_column(unique=True)
    state: Mapped[SessionState] = mapped_column(one_of(SessionState, "state"), default=SessionState.CREATED)
    plan_seed: Mapped[Sha256]
    locale: Mapped[Name]
    is_test: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[Micros]
    last_seen: Mapped[Micros]
    ended_at: Mapped[Micros | None]
    completion_code: Mapped[Name | None]
    css_width: Mapped[int | None]
    css_height: Mapped[int | None]
    pixel_ratio: Mapped[float | None]
    device_class: Mapped[Name | None]
    browser_family: Mapped[Name | None]


class Consent(Base):
    """The consent a session gave, and to which text."""

    __tablename__ = "consent"

    session_id: Mapped[int] = mapped_column(ROW_ID, ForeignKey("session.id"), primary_key=True, autoincrement=False)
    doc_sha256: Mapped[Sha256]
    locale: Mapped[Name]
    boxes_json: Mapped[Document]
    at: Mapped[Micros]


_OPEN_TRIAL = text("state IN ('issued', 'shown')")
_REAL_TRIAL = text("kind = 'real'")


class Trial(Base):
    """One question put to one session; the pictures it shows are its slots."""

    __tablename__ = "trial"
    __table_args__ = (
        UniqueConstraint("session_id", "seq"),
        Index(
            "uq_trial_real_image",
            *("session_id", "image_id"),
            unique=True,
            sqlite_where=_REAL_TRIAL,
            postgresql_where=_REAL_TRIAL,
        ),
        Index("ix_trial_lease", "version_id", "lease_until", sqlite_where=_OPEN_TRIAL, postgresql_where=_OPEN_TRIAL),
        Index(None, "cell_id", "state"),
        CheckConstraint("seq >= 0", name="seq_not_negative"),
        CheckConstraint("(kind <> 'real') OR (cell_id IS NOT NULL)", name="real_has_cell"),
        CheckConstraint("(kind = 'repeat') = (repeat_of_id IS NOT NULL)", name="repeat_has_original"),
        CheckConstraint("(gold_criterion IS NULL) = (gold_position IS NULL)", name="gold_is_whole"),
        CheckConstraint("propensity IS NULL OR (propensity > 0 AND propensity <= 1)", name="propensity_is_probability"),
        CheckConstraint("(state = 'answered') = (answered_at IS NOT NULL)", name="answered_has_time"),
        NEVER_REUSE_IDS,
    )

    id: Mapped[RowId]
    public_id: Mapped[Name] = mapped_column(unique=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("study_version.id"))
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    seq: Mapped[int]
    kind: Mapped[TrialKind] = mapped_column(one_of(TrialKind, "kind"))
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"))
    cell_id: Mapped[int | None] = mapped_column(ForeignKey("cell.id"))
    repeat_of_id: Mapped[int | None] = mapped_column(ForeignKey("trial.id"))
    gold_criterion: Mapped[Name | None]
    gold_position: Mapped[int | None] = mapped_column(SmallInteger)
    state: Mapped[TrialState] = mapped_column(one_of(TrialState, "state"), default=TrialState.ISSUED)
    lease_until: Mapped[Micros | None]
    assign_algo: Mapped[Name]
    propensity: Mapped[float | None]
    issued_at: Mapped[Micros]
    shown_at: Mapped[Micros | None]
    answered_at: Mapped[Micros | None]


class TrialSlot(Base):
    """A picture of a trial at its position, behind the hash of an unguessable token."""

    __tablename__ = "trial_slot"
    __table_args__ = (
        UniqueConstraint("trial_id", "role", "position"),
        CheckConstraint("position >= 0", name="position_not_negative"),
    )

    id: Mapped[RowId]
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"))
    role: Mapped[SlotRole] = mapped_column(one_of(SlotRole, "role"), default=SlotRole.CANDIDATE)
    position: Mapped[int] = mapped_column(SmallInteger)
    rendition_id: Mapped[int] = mapped_column(ForeignKey("rendition.id"))
    token_hash: Mapped[Sha256] = mapped_column(unique=True)


class Response(Base):
    """The answer of a trial to one criterion: written once, never edited, deleted only by a withdrawal (triggers)."""

    __tablename__ = "response"
    __table_args__ = (
        UniqueConstraint("trial_id", "criterion"),
        UniqueConstraint("idempotency_key", "criterion"),
        CheckConstraint("(outcome = 'choice') = (position IS NOT NULL)", name="choice_has_position"),
        CheckConstraint("position IS NULL OR position >= 0", name="position_not_negative"),
        CheckConstraint("rt_ms IS NULL OR rt_ms >= 0", name="rt_not_negative"),
        NEVER_REUSE_IDS,
    )

    id: Mapped[RowId]
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"))
    criterion: Mapped[Name]
    idempotency_key: Mapped[Name]
    outcome: Mapped[Outcome] = mapped_column(one_of(Outcome, "outcome"))
    position: Mapped[int | None] = mapped_column(SmallInteger)
    rt_ms: Mapped[int | None]
    first_input_ms: Mapped[int | None]
    n_changes: Mapped[int | None]
    zoom_ms: Mapped[int | None]
    flips: Mapped[int | None]
    hidden_ms: Mapped[int | None]
    server_ms: Mapped[int | None]
    gold_correct: Mapped[bool | None]  # of the one question that a gold or practice trial tests
    answered_at: Mapped[Micros]


class ResponseAttempt(Base):
    """A submission that was not counted, and why: evidence, never an answer."""

    __tablename__ = "response_attempt"

    id: Mapped[RowId]
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"), index=True)
    trial_id: Mapped[int | None] = mapped_column(ForeignKey("trial.id"), index=True)
    idempotency_key: Mapped[Name | None]
    reason: Mapped[Name]
    payload_json: Mapped[Document]
    at: Mapped[Micros]


class Exclusion(Base):
    """A rule that a session or one answer broke; append-only, undone by a later row that reverses it."""

    __tablename__ = "exclusion"
    __table_args__ = (
        CheckConstraint("(session_id IS NULL) <> (response_id IS NULL)", name="one_target"),
        NEVER_REUSE_IDS,
    )

    id: Mapped[RowId]
    session_id: Mapped[int | None] = mapped_column(ForeignKey("session.id"), index=True)
    response_id: Mapped[int | None] = mapped_column(ForeignKey("response.id"), index=True)
    rule_key: Mapped[Name]
    rule_sha256: Mapped[Sha256]
    effect: Mapped[ExclusionEffect] = mapped_column(one_of(ExclusionEffect, "effect"))
    evidence_json: Mapped[Document]
    actor: Mapped[Name]
    at: Mapped[Micros]
    reverses_id: Mapped[int | None] = mapped_column(ForeignKey("exclusion.id"), unique=True)


class Event(Base):
    """What the page saw while a trial was on screen."""

    __tablename__ = "event"

    id: Mapped[RowId]
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"), index=True)
    trial_id: Mapped[int | None] = mapped_column(ForeignKey("trial.id"), index=True)
    type: Mapped[EventType] = mapped_column(one_of(EventType, "type"))
    t_client: Mapped[Micros]
    t_server: Mapped[Micros]
    value: Mapped[Name | None]


class Signal(Base):
    """What a defence made out about a session; evidence beside the rules, never an exclusion."""

    __tablename__ = "signal"
    __table_args__ = (UniqueConstraint("session_id", "name"), Index(None, "at"), NEVER_REUSE_IDS)

    id: Mapped[RowId]
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    name: Mapped[Name]
    outcome: Mapped[SignalOutcome] = mapped_column(one_of(SignalOutcome, "outcome"))
    at: Mapped[Micros]


class Audit(Base):
    """The chain of what people did to a study; a row names the hash of the one before, which only one row may do."""

    __tablename__ = "audit"

    id: Mapped[RowId]
    at: Mapped[Micros]
    actor: Mapped[Name]
    action: Mapped[Name]
    object: Mapped[Name]
    payload_sha256: Mapped[Sha256]
    prev_hash: Mapped[Sha256] = mapped_column(unique=True)
    hash: Mapped[Sha256] = mapped_column(unique=True)


class Withdrawal(Base):
    """A participant's wish to stop, or to be erased.

    Answers may be deleted only while `erasing` is -1 in a row of their session. That value refers to a row that cannot
    exist, by a foreign key that is checked at COMMIT: a transaction can open an erasure, but none can leave it open.
    """

    __tablename__ = "withdrawal"
    __table_args__ = (
        UniqueConstraint("session_id", "scope"),
        CheckConstraint("id > 0", name="id_is_positive"),
        CheckConstraint("erasing IS NULL OR (erasing = -1 AND scope = 'erase')", name="erasing_is_open_or_null"),
        NEVER_REUSE_IDS,
    )

    id: Mapped[RowId]
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    scope: Mapped[WithdrawalScope] = mapped_column(one_of(WithdrawalScope, "scope"))
    at: Mapped[Micros]
    erasing: Mapped[int | None] = mapped_column(ForeignKey("withdrawal.id", deferrable=True, initially="DEFERRED"))
    result_json: Mapped[Document | None]


class AnalysisVote(Base):
    """One answer as statistics read it: narrow, whole numbers only, written in the answer's own transaction.

    Pairwise: `first_method_id` stood at position 0, `second_method_id` at 1. Best of N: both are NULL and `rotation`
    says the order. `used` is 0 for what exclusions with effect `use` took out; it changes in the exclusion's
    transaction. Test sessions never get a row. `criterion` counts the criteria in the order of the definition.
    """

    __tablename__ = "analysis_vote"
    __table_args__ = (
        # The index holds every column, so that reading a study never touches the table (measured: benchmarks).
        Index(
            "ix_analysis_vote_covering",
            *("version_id", "kind", "used", "criterion", "image_id", "session_id", "participant_id", "response_id"),
            *("trial_id", "cell_id", "first_method_id", "second_method_id", "rotation", "chosen_method_id"),
            *("outcome", "position", "rt_ms", "answered_at"),
        ),
        Index(None, "session_id"),
        CheckConstraint("outcome IN (0, 1, 2)", name="outcome_code"),
        CheckConstraint("kind IN (0, 1, 2, 3, 4)", name="kind_code"),
        CheckConstraint("used IN (0, 1)", name="used_is_yes_or_no"),
        CheckConstraint(
            "(outcome = 0) = (chosen_method_id IS NOT NULL) OR kind NOT IN (0, 1)", name="choice_has_method"
        ),
    )

    response_id: Mapped[int] = mapped_column(
        ROW_ID, ForeignKey("response.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    version_id: Mapped[Ref]
    criterion: Mapped[int] = mapped_column(SmallInteger)
    kind: Mapped[int] = mapped_column(SmallInteger)
    image_id: Mapped[Ref]
    session_id: Mapped[Ref]
    participant_id: Mapped[Ref]
    trial_id: Mapped[Ref]
    cell_id: Mapped[Ref | None]
    first_method_id: Mapped[Ref | None]
    second_method_id: Mapped[Ref | None]
    rotation: Mapped[int | None]
    chosen_method_id: Mapped[Ref | None]
    outcome: Mapped[int] = mapped_column(SmallInteger)
    position: Mapped[int | None] = mapped_column(SmallInteger)
    rt_ms: Mapped[int | None]
    answered_at: Mapped[Micros]
    used: Mapped[int] = mapped_column(SmallInteger, default=1)
