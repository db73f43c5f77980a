"""The tables of the study, and the triggers that keep what no constraint can say."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SHA256 = sa.String(length=64)
NAME = sa.String(length=200)

# In the order in which they refer to each other.
TABLES = (
    "audit",
    "blob",
    "study",
    "study_version",
    "image",
    "method",
    "participant",
    "payment_link",
    "cell",
    "rendition",
    "session",
    "consent",
    "trial",
    "withdrawal",
    "event",
    "response",
    "response_attempt",
    "trial_slot",
    "analysis_vote",
    "exclusion",
    "signal",
)


def upgrade() -> None:
    """Create every table with its indexes, then the triggers of the database at hand."""
    _create_audit()
    _create_blob()
    _create_study()
    _create_study_version()
    _create_image()
    _create_method()
    _create_participant()
    _create_payment_link()
    _create_cell()
    _create_rendition()
    _create_session()
    _create_consent()
    _create_trial()
    _create_withdrawal()
    _create_event()
    _create_response()
    _create_response_attempt()
    _create_trial_slot()
    _create_analysis_vote()
    _create_exclusion()
    _create_signal()
    for statement in TRIGGERS[op.get_bind().dialect.name]:
        op.execute(sa.text(statement))


def downgrade() -> None:
    """Drop everything; triggers and indexes go with their tables."""
    for table in reversed(TABLES):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        for function in FUNCTIONS:
            op.execute(sa.text(f"DROP FUNCTION {function}()"))


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("action", NAME, nullable=False),
        sa.Column("object", NAME, nullable=False),
        sa.Column("payload_sha256", SHA256, nullable=False),
        sa.Column("prev_hash", SHA256, nullable=False),
        sa.Column("hash", SHA256, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sa.UniqueConstraint("hash", name=op.f("uq_audit_hash")),
        sa.UniqueConstraint("prev_hash", name=op.f("uq_audit_prev_hash")),
    )


def _create_blob() -> None:
    op.create_table(
        "blob",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("sha256", SHA256, nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("path", NAME, nullable=True),
        sa.CheckConstraint("(content IS NULL) <> (path IS NULL)", name=op.f("ck_blob_content_or_path")),
        sa.CheckConstraint("length > 0", name=op.f("ck_blob_is_not_empty")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob")),
        sa.UniqueConstraint("sha256", name=op.f("uq_blob_sha256")),
    )


def _create_study() -> None:
    op.create_table(
        "study",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("slug", NAME, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
        sa.UniqueConstraint("slug", name=op.f("uq_study_slug")),
    )


def _create_study_version() -> None:
    op.create_table(
        "study_version",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("study_id", ROW_ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("spec_json", sa.Text(), nullable=False),
        sa.Column("spec_sha256", SHA256, nullable=False),
        sa.Column("design_seed", SHA256, nullable=False),
        sa.Column(
            "status",
            _one_of("status", "draft", "pilot", "live", "paused", "draining", "closed"),
            nullable=False,
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("launched_at", sa.BigInteger(), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("unblinded_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("length(spec_sha256) = 64", name=op.f("ck_study_version_spec_sha256_is_hexadecimal")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_study_version_version_counts_from_one")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_study_version_study_id_study")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study_version")),
        sa.UniqueConstraint("study_id", "version", name=op.f("uq_study_version_study_id_version")),
    )


def _create_image() -> None:
    op.create_table(
        "image",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("source_sha256", SHA256, nullable=False),
        sa.Column("hole_sha256", SHA256, nullable=False),
        sa.Column("stratum", NAME, nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["study_version.id"], name=op.f("fk_image_version_id_study_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint("version_id", "key", name=op.f("uq_image_version_id_key")),
    )


def _create_method() -> None:
    op.create_table(
        "method",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("alias", NAME, nullable=False),
        sa.Column(
            "role",
            _one_of("role", "target", "baseline"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["version_id"], ["study_version.id"], name=op.f("fk_method_version_id_study_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_method")),
        sa.UniqueConstraint("version_id", "alias", name=op.f("uq_method_version_id_alias")),
        sa.UniqueConstraint("version_id", "key", name=op.f("uq_method_version_id_key")),
    )


def _create_participant() -> None:
    op.create_table(
        "participant",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("source", NAME, nullable=False),
        sa.Column("ext_hmac", SHA256, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["study_version.id"], name=op.f("fk_participant_version_id_study_version")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_participant")),
        sa.UniqueConstraint("version_id", "source", "ext_hmac", name=op.f("uq_participant_version_id_source_ext_hmac")),
        sqlite_autoincrement=True,
    )


def _create_payment_link() -> None:
    op.create_table(
        "payment_link",
        sa.Column("participant_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("key_id", NAME, nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participant.id"], name=op.f("fk_payment_link_participant_id_participant")
        ),
        sa.PrimaryKeyConstraint("participant_id", name=op.f("pk_payment_link")),
    )
    op.create_index(op.f("ix_payment_link_key_id"), "payment_link", ["key_id"], unique=False)


def _create_cell() -> None:
    op.create_table(
        "cell",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("image_id", ROW_ID, nullable=False),
        sa.Column("method_lo_id", ROW_ID, nullable=True),
        sa.Column("method_hi_id", ROW_ID, nullable=True),
        sa.Column("side", sa.SmallInteger(), nullable=True),
        sa.Column("rotation", sa.Integer(), nullable=True),
        sa.Column("target", sa.Integer(), nullable=False),
        sa.Column("n_valid", sa.Integer(), nullable=False),
        sa.Column("n_live", sa.Integer(), nullable=False),
        sa.Column("n_partial", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(rotation IS NULL AND method_lo_id IS NOT NULL AND method_hi_id IS NOT NULL AND side IS NOT NULL"
            " AND method_lo_id < method_hi_id AND side IN (0, 1))"
            " OR (rotation IS NOT NULL AND rotation >= 0 AND method_lo_id IS NULL AND method_hi_id IS NULL"
            " AND side IS NULL)",
            name=op.f("ck_cell_pairwise_or_best_of_n"),
        ),
        sa.CheckConstraint("n_live >= 0", name=op.f("ck_cell_n_live_not_negative")),
        sa.CheckConstraint("n_partial >= 0", name=op.f("ck_cell_n_partial_not_negative")),
        sa.CheckConstraint("n_valid >= 0", name=op.f("ck_cell_n_valid_not_negative")),
        sa.CheckConstraint("target >= 0", name=op.f("ck_cell_target_not_negative")),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_cell_image_id_image")),
        sa.ForeignKeyConstraint(["method_hi_id"], ["method.id"], name=op.f("fk_cell_method_hi_id_method")),
        sa.ForeignKeyConstraint(["method_lo_id"], ["method.id"], name=op.f("fk_cell_method_lo_id_method")),
        sa.ForeignKeyConstraint(["version_id"], ["study_version.id"], name=op.f("fk_cell_version_id_study_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cell")),
    )
    op.create_index(
        "uq_cell_best_of_n",
        "cell",
        ["version_id", "image_id", "rotation"],
        unique=True,
        sqlite_where=sa.text("rotation IS NOT NULL"),
        postgresql_where=sa.text("rotation IS NOT NULL"),
    )
    op.create_index(
        "uq_cell_pairwise",
        "cell",
        ["version_id", "image_id", "method_lo_id", "method_hi_id", "side"],
        unique=True,
        sqlite_where=sa.text("rotation IS NULL"),
        postgresql_where=sa.text("rotation IS NULL"),
    )


def _create_rendition() -> None:
    op.create_table(
        "rendition",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("image_id", ROW_ID, nullable=False),
        sa.Column("method_id", ROW_ID, nullable=True),
        sa.Column(
            "kind",
            _one_of("kind", "output", "input", "hole", "original", "gold"),
            nullable=False,
        ),
        sa.Column("variant", NAME, nullable=False),
        sa.Column("blob_id", ROW_ID, nullable=False),
        sa.Column("pixel_sha256", SHA256, nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(kind <> 'output') OR (method_id IS NOT NULL)", name=op.f("ck_rendition_output_has_method")
        ),
        sa.CheckConstraint("width > 0 AND height > 0", name=op.f("ck_rendition_has_a_size")),
        sa.ForeignKeyConstraint(["blob_id"], ["blob.id"], name=op.f("fk_rendition_blob_id_blob")),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_rendition_image_id_image")),
        sa.ForeignKeyConstraint(["method_id"], ["method.id"], name=op.f("fk_rendition_method_id_method")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["study_version.id"], name=op.f("fk_rendition_version_id_study_version")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rendition")),
    )
    op.create_index(
        "uq_rendition_of_image",
        "rendition",
        ["version_id", "image_id", "kind", "variant"],
        unique=True,
        sqlite_where=sa.text("method_id IS NULL"),
        postgresql_where=sa.text("method_id IS NULL"),
    )
    op.create_index(
        "uq_rendition_of_method",
        "rendition",
        ["version_id", "image_id", "method_id", "kind", "variant"],
        unique=True,
        sqlite_where=sa.text("method_id IS NOT NULL"),
        postgresql_where=sa.text("method_id IS NOT NULL"),
    )


def _create_session() -> None:
    op.create_table(
        "session",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("public_id", NAME, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("participant_id", ROW_ID, nullable=False),
        sa.Column("token_hash", SHA256, nullable=False),
        sa.Column(
            "state",
            _one_of(
                "state",
                "created",
                "screened",
                "consented",
                "practising",
                "running",
                "completed",
                "screened_out",
                "declined",
                "abandoned",
                "withdrawn",
            ),
            nullable=False,
        ),
        sa.Column("plan_seed", SHA256, nullable=False),
        sa.Column("locale", NAME, nullable=False),
        sa.Column("is_test", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("completion_code", NAME, nullable=True),
        sa.Column("css_width", sa.Integer(), nullable=True),
        sa.Column("css_height", sa.Integer(), nullable=True),
        sa.Column("pixel_ratio", sa.Double(), nullable=True),
        sa.Column("device_class", NAME, nullable=True),
        sa.Column("browser_family", NAME, nullable=True),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participant.id"], name=op.f("fk_session_participant_id_participant")
        ),
        sa.ForeignKeyConstraint(["version_id"], ["study_version.id"], name=op.f("fk_session_version_id_study_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
        sa.UniqueConstraint("public_id", name=op.f("uq_session_public_id")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_session_token_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_session_version_id_state"), "session", ["version_id", "state"], unique=False)
    op.create_index(
        "uq_session_live",
        "session",
        ["participant_id"],
        unique=True,
        sqlite_where=sa.text("state IN ('created', 'screened', 'consented', 'practising', 'running')"),
        postgresql_where=sa.text("state IN ('created', 'screened', 'consented', 'practising', 'running')"),
    )


def _create_consent() -> None:
    op.create_table(
        "consent",
        sa.Column("session_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("doc_sha256", SHA256, nullable=False),
        sa.Column("locale", NAME, nullable=False),
        sa.Column("boxes_json", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_consent_session_id_session")),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_consent")),
    )


def _create_trial() -> None:
    op.create_table(
        "trial",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("public_id", NAME, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("session_id", ROW_ID, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column(
            "kind",
            _one_of("kind", "practice", "gold", "attention", "real", "repeat"),
            nullable=False,
        ),
        sa.Column("image_id", ROW_ID, nullable=False),
        sa.Column("cell_id", ROW_ID, nullable=True),
        sa.Column("repeat_of_id", ROW_ID, nullable=True),
        sa.Column("gold_criterion", NAME, nullable=True),
        sa.Column("gold_position", sa.SmallInteger(), nullable=True),
        sa.Column(
            "state",
            _one_of("state", "issued", "shown", "expired", "answered", "void"),
            nullable=False,
        ),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("assign_algo", NAME, nullable=False),
        sa.Column("propensity", sa.Double(), nullable=True),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("shown_at", sa.BigInteger(), nullable=True),
        sa.Column("answered_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("(kind <> 'real') OR (cell_id IS NOT NULL)", name=op.f("ck_trial_real_has_cell")),
        sa.CheckConstraint("(kind = 'repeat') = (repeat_of_id IS NOT NULL)", name=op.f("ck_trial_repeat_has_original")),
        sa.CheckConstraint("(state = 'answered') = (answered_at IS NOT NULL)", name=op.f("ck_trial_answered_has_time")),
        sa.CheckConstraint("(gold_criterion IS NULL) = (gold_position IS NULL)", name=op.f("ck_trial_gold_is_whole")),
        sa.CheckConstraint(
            "propensity IS NULL OR (propensity > 0 AND propensity <= 1)",
            name=op.f("ck_trial_propensity_is_probability"),
        ),
        sa.CheckConstraint("seq >= 0", name=op.f("ck_trial_seq_not_negative")),
        sa.ForeignKeyConstraint(["cell_id"], ["cell.id"], name=op.f("fk_trial_cell_id_cell")),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_trial_image_id_image")),
        sa.ForeignKeyConstraint(["repeat_of_id"], ["trial.id"], name=op.f("fk_trial_repeat_of_id_trial")),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_trial_session_id_session")),
        sa.ForeignKeyConstraint(["version_id"], ["study_version.id"], name=op.f("fk_trial_version_id_study_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trial")),
        sa.UniqueConstraint("public_id", name=op.f("uq_trial_public_id")),
        sa.UniqueConstraint("session_id", "seq", name=op.f("uq_trial_session_id_seq")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_trial_cell_id_state"), "trial", ["cell_id", "state"], unique=False)
    op.create_index(
        "ix_trial_lease",
        "trial",
        ["version_id", "lease_until"],
        unique=False,
        sqlite_where=sa.text("state IN ('issued', 'shown')"),
        postgresql_where=sa.text("state IN ('issued', 'shown')"),
    )
    op.create_index(
        "uq_trial_real_image",
        "trial",
        ["session_id", "image_id"],
        unique=True,
        sqlite_where=sa.text("kind = 'real'"),
        postgresql_where=sa.text("kind = 'real'"),
    )


def _create_withdrawal() -> None:
    op.create_table(
        "withdrawal",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("session_id", ROW_ID, nullable=False),
        sa.Column(
            "scope",
            _one_of("scope", "stop", "erase"),
            nullable=False,
        ),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("erasing", ROW_ID, nullable=True),
        sa.Column("result_json", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "erasing IS NULL OR (erasing = -1 AND scope = 'erase')", name=op.f("ck_withdrawal_erasing_is_open_or_null")
        ),
        sa.CheckConstraint("id > 0", name=op.f("ck_withdrawal_id_is_positive")),
        sa.ForeignKeyConstraint(
            ["erasing"],
            ["withdrawal.id"],
            name=op.f("fk_withdrawal_erasing_withdrawal"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_withdrawal_session_id_session")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawal")),
        sa.UniqueConstraint("session_id", "scope", name=op.f("uq_withdrawal_session_id_scope")),
        sqlite_autoincrement=True,
    )


def _create_event() -> None:
    op.create_table(
        "event",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("session_id", ROW_ID, nullable=False),
        sa.Column("trial_id", ROW_ID, nullable=True),
        sa.Column(
            "type",
            _one_of(
                "type",
                "visible",
                "hidden",
                "blur",
                "focus",
                "resize",
                "zoom",
                "flip",
                "peek",
                "decode",
                "retry",
                "error",
            ),
            nullable=False,
        ),
        sa.Column("t_client", sa.BigInteger(), nullable=False),
        sa.Column("t_server", sa.BigInteger(), nullable=False),
        sa.Column("value", NAME, nullable=True),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_event_session_id_session")),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_event_trial_id_trial")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )
    op.create_index(op.f("ix_event_session_id"), "event", ["session_id"], unique=False)
    op.create_index(op.f("ix_event_trial_id"), "event", ["trial_id"], unique=False)


def _create_response() -> None:
    op.create_table(
        "response",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("trial_id", ROW_ID, nullable=False),
        sa.Column("criterion", NAME, nullable=False),
        sa.Column("idempotency_key", NAME, nullable=False),
        sa.Column(
            "outcome",
            _one_of("outcome", "choice", "tie", "cant_tell"),
            nullable=False,
        ),
        sa.Column("position", sa.SmallInteger(), nullable=True),
        sa.Column("rt_ms", sa.Integer(), nullable=True),
        sa.Column("first_input_ms", sa.Integer(), nullable=True),
        sa.Column("n_changes", sa.Integer(), nullable=True),
        sa.Column("zoom_ms", sa.Integer(), nullable=True),
        sa.Column("flips", sa.Integer(), nullable=True),
        sa.Column("hidden_ms", sa.Integer(), nullable=True),
        sa.Column("server_ms", sa.Integer(), nullable=True),
        sa.Column("gold_correct", sa.Boolean(), nullable=True),
        sa.Column("answered_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(outcome = 'choice') = (position IS NOT NULL)", name=op.f("ck_response_choice_has_position")
        ),
        sa.CheckConstraint("position IS NULL OR position >= 0", name=op.f("ck_response_position_not_negative")),
        sa.CheckConstraint("rt_ms IS NULL OR rt_ms >= 0", name=op.f("ck_response_rt_not_negative")),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_response_trial_id_trial")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_response")),
        sa.UniqueConstraint("idempotency_key", "criterion", name=op.f("uq_response_idempotency_key_criterion")),
        sa.UniqueConstraint("trial_id", "criterion", name=op.f("uq_response_trial_id_criterion")),
        sqlite_autoincrement=True,
    )


def _create_response_attempt() -> None:
    op.create_table(
        "response_attempt",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("session_id", ROW_ID, nullable=False),
        sa.Column("trial_id", ROW_ID, nullable=True),
        sa.Column("idempotency_key", NAME, nullable=True),
        sa.Column("reason", NAME, nullable=False),
        sa.Column("payload_json", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_response_attempt_session_id_session")),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_response_attempt_trial_id_trial")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_response_attempt")),
    )
    op.create_index(op.f("ix_response_attempt_session_id"), "response_attempt", ["session_id"], unique=False)
    op.create_index(op.f("ix_response_attempt_trial_id"), "response_attempt", ["trial_id"], unique=False)


def _create_trial_slot() -> None:
    op.create_table(
        "trial_slot",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("trial_id", ROW_ID, nullable=False),
        sa.Column(
            "role",
            _one_of("role", "candidate", "input", "hole", "original"),
            nullable=False,
        ),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("rendition_id", ROW_ID, nullable=False),
        sa.Column("token_hash", SHA256, nullable=False),
        sa.CheckConstraint("position >= 0", name=op.f("ck_trial_slot_position_not_negative")),
        sa.ForeignKeyConstraint(["rendition_id"], ["rendition.id"], name=op.f("fk_trial_slot_rendition_id_rendition")),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_trial_slot_trial_id_trial")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trial_slot")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_trial_slot_token_hash")),
        sa.UniqueConstraint("trial_id", "role", "position", name=op.f("uq_trial_slot_trial_id_role_position")),
    )


def _create_analysis_vote() -> None:
    op.create_table(
        "analysis_vote",
        sa.Column("response_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("criterion", sa.SmallInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("image_id", ROW_ID, nullable=False),
        sa.Column("session_id", ROW_ID, nullable=False),
        sa.Column("participant_id", ROW_ID, nullable=False),
        sa.Column("trial_id", ROW_ID, nullable=False),
        sa.Column("cell_id", ROW_ID, nullable=True),
        sa.Column("first_method_id", ROW_ID, nullable=True),
        sa.Column("second_method_id", ROW_ID, nullable=True),
        sa.Column("rotation", sa.Integer(), nullable=True),
        sa.Column("chosen_method_id", ROW_ID, nullable=True),
        sa.Column("outcome", sa.SmallInteger(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=True),
        sa.Column("rt_ms", sa.Integer(), nullable=True),
        sa.Column("answered_at", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.SmallInteger(), nullable=False),
        sa.CheckConstraint(
            "(outcome = 0) = (chosen_method_id IS NOT NULL) OR kind NOT IN (0, 1)",
            name=op.f("ck_analysis_vote_choice_has_method"),
        ),
        sa.CheckConstraint("kind IN (0, 1, 2, 3, 4)", name=op.f("ck_analysis_vote_kind_code")),
        sa.CheckConstraint("outcome IN (0, 1, 2)", name=op.f("ck_analysis_vote_outcome_code")),
        sa.CheckConstraint("used IN (0, 1)", name=op.f("ck_analysis_vote_used_is_yes_or_no")),
        sa.ForeignKeyConstraint(
            ["response_id"], ["response.id"], name=op.f("fk_analysis_vote_response_id_response"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("response_id", name=op.f("pk_analysis_vote")),
    )
    op.create_index(
        "ix_analysis_vote_covering",
        "analysis_vote",
        [
            "version_id",
            "kind",
            "used",
            "criterion",
            "image_id",
            "session_id",
            "participant_id",
            "response_id",
            "trial_id",
            "cell_id",
            "first_method_id",
            "second_method_id",
            "rotation",
            "chosen_method_id",
            "outcome",
            "position",
            "rt_ms",
            "answered_at",
        ],
        unique=False,
    )
    op.create_index(op.f("ix_analysis_vote_session_id"), "analysis_vote", ["session_id"], unique=False)


def _create_exclusion() -> None:
    op.create_table(
        "exclusion",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("session_id", ROW_ID, nullable=True),
        sa.Column("response_id", ROW_ID, nullable=True),
        sa.Column("rule_key", NAME, nullable=False),
        sa.Column("rule_sha256", SHA256, nullable=False),
        sa.Column(
            "effect",
            _one_of("effect", "accept", "use", "flag"),
            nullable=False,
        ),
        sa.Column("evidence_json", sa.Text(), nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("reverses_id", ROW_ID, nullable=True),
        sa.CheckConstraint("(session_id IS NULL) <> (response_id IS NULL)", name=op.f("ck_exclusion_one_target")),
        sa.ForeignKeyConstraint(["response_id"], ["response.id"], name=op.f("fk_exclusion_response_id_response")),
        sa.ForeignKeyConstraint(["reverses_id"], ["exclusion.id"], name=op.f("fk_exclusion_reverses_id_exclusion")),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_exclusion_session_id_session")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exclusion")),
        sa.UniqueConstraint("reverses_id", name=op.f("uq_exclusion_reverses_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_exclusion_response_id"), "exclusion", ["response_id"], unique=False)
    op.create_index(op.f("ix_exclusion_session_id"), "exclusion", ["session_id"], unique=False)


def _create_signal() -> None:
    op.create_table(
        "signal",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("session_id", ROW_ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("outcome", _one_of("outcome", "pass", "fail", "unknown"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_signal_session_id_session")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signal")),
        sa.UniqueConstraint("session_id", "name", name=op.f("uq_signal_session_id_name")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_signal_at"), "signal", ["at"], unique=False)


def _one_of(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=16)


def _refuse(name: str, when: str, message: str, only_if: str = "") -> tuple[str, str]:
    """The same refusal for SQLite and for PostgreSQL (whose trigger calls `asuka_refuse`)."""
    condition = f" WHEN ({only_if})" if only_if else ""
    return (
        f"CREATE TRIGGER {name} BEFORE {when} FOR EACH ROW{condition} BEGIN SELECT RAISE(ABORT, '{message}'); END",
        f"CREATE TRIGGER {name} BEFORE {when} FOR EACH ROW{condition} EXECUTE FUNCTION asuka_refuse('{message}')",
    )


# (SQLite, PostgreSQL): refusals that look at nothing but the row itself.
_REFUSALS = (
    _refuse(
        "study_version_is_frozen",
        "UPDATE OF study_id, version, spec_json, spec_sha256, design_seed ON study_version",
        "a launched study definition cannot change, make a new version of it",
        "OLD.status <> 'draft'",
    ),
    _refuse(
        "study_version_stays_launched",
        "UPDATE OF status ON study_version",
        "a launched study version cannot become a draft again",
        "OLD.status <> 'draft' AND NEW.status = 'draft'",
    ),
    _refuse(
        "study_version_is_kept",
        "DELETE ON study_version",
        "a launched study version cannot be deleted, close it",
        "OLD.status <> 'draft'",
    ),
    _refuse("response_is_never_edited", "UPDATE ON response", "an answer is never edited"),
    _refuse("exclusion_is_never_edited", "UPDATE ON exclusion", "an exclusion is never edited, reverse it by another"),
    _refuse("audit_is_never_edited", "UPDATE ON audit", "the audit trail is never edited"),
    _refuse("audit_is_kept", "DELETE ON audit", "the audit trail is never deleted"),
    _refuse("withdrawal_is_kept", "DELETE ON withdrawal", "a withdrawal is never deleted"),
    _refuse(
        "withdrawal_is_never_edited",
        "UPDATE OF session_id, scope, at ON withdrawal",
        "a withdrawal is never edited beyond its result",
    ),
)

_NO_WITHDRAWAL_OF_RESPONSE = (
    "NOT EXISTS (SELECT 1 FROM withdrawal w JOIN trial t ON t.session_id = w.session_id"
    " WHERE t.id = OLD.trial_id AND w.erasing = -1)"
)
_NO_WITHDRAWAL_OF_EXCLUSION = (
    "NOT EXISTS (SELECT 1 FROM withdrawal w WHERE w.erasing = -1 AND w.session_id = COALESCE(OLD.session_id,"
    " (SELECT t.session_id FROM response r JOIN trial t ON t.id = r.trial_id WHERE r.id = OLD.response_id)))"
)
_TEST_SESSION = "EXISTS (SELECT 1 FROM session s WHERE s.id = NEW.session_id AND s.is_test)"

# name, event and table, when to refuse, message: refusals that must look at other rows.
_LOOKUPS = (
    (
        "response_needs_withdrawal",
        "DELETE ON response",
        _NO_WITHDRAWAL_OF_RESPONSE,
        "an answer is deleted only by the withdrawal of its session, in the same transaction",
    ),
    (
        "exclusion_needs_withdrawal",
        "DELETE ON exclusion",
        _NO_WITHDRAWAL_OF_EXCLUSION,
        "an exclusion is deleted only by the withdrawal of its session, in the same transaction",
    ),
    (
        "test_votes_never_count",
        "INSERT ON analysis_vote",
        _TEST_SESSION,
        "the answers of a test session never enter the analysis",
    ),
)

_REFUSE_FUNCTION = """
CREATE FUNCTION asuka_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'integrity_constraint_violation';
END $$
"""


def _lookup_function(name: str, when: str, condition: str, message: str) -> str:
    row = "NEW" if when.startswith("INSERT") else "OLD"
    return f"""
CREATE FUNCTION asuka_{name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF {condition} THEN
        RAISE EXCEPTION USING MESSAGE = '{message}', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN {row};
END $$
"""


def _never_truncated(table: str) -> str:
    return (
        f"CREATE TRIGGER {table}_is_never_truncated BEFORE TRUNCATE ON {table}"
        f" EXECUTE FUNCTION asuka_refuse('{table} is never emptied')"
    )


TRIGGERS = {
    "sqlite": [
        *(sqlite for sqlite, _ in _REFUSALS),
        *(
            f"CREATE TRIGGER {name} BEFORE {when} FOR EACH ROW WHEN {condition}"
            f" BEGIN SELECT RAISE(ABORT, '{message}'); END"
            for name, when, condition, message in _LOOKUPS
        ),
    ],
    "postgresql": [
        _REFUSE_FUNCTION,
        *(postgres for _, postgres in _REFUSALS),
        *(_lookup_function(*lookup) for lookup in _LOOKUPS),
        *(
            f"CREATE TRIGGER {name} BEFORE {when} FOR EACH ROW EXECUTE FUNCTION asuka_{name}()"
            for name, when, _, _ in _LOOKUPS
        ),
        *(_never_truncated(table) for table in ("response", "audit", "withdrawal")),
    ],
}

# PostgreSQL keeps functions apart from tables; SQLite has none of ours.
FUNCTIONS = ("asuka_refuse", *(f"asuka_{name}" for name, *_ in _LOOKUPS))
