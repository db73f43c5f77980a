"""The columns of every exported table: name, type and meaning, said once for CSV, Parquet, JSON and the reader."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from study.definition import StudyDefinition

ColumnType = Literal["text", "texts", "whole", "number", "yes_no", "time"]

LIST_SEPARATOR = "|"
"""Between the parts of a `texts` cell in CSV; no key may contain it."""

TYPE_MEANINGS: Mapping[ColumnType, str] = {
    "text": "UTF-8 text",
    "texts": f"a list of texts; in CSV joined by {LIST_SEPARATOR!r}",
    "whole": "whole number",
    "number": "decimal number",
    "yes_no": "true or false; in CSV 1 or 0",
    "time": "UTC, rounded down to seconds, YYYY-MM-DDTHH:MM:SSZ",
}


@dataclass(frozen=True)
class Column:
    """One column of an exported table."""

    name: str
    type: ColumnType
    meaning: str


def _columns(*rows: tuple[str, ColumnType, str]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)


VOTES = _columns(
    ("study", "text", "slug of the study"),
    ("version", "whole", "version of its definition"),
    ("spec_sha256", "text", "SHA-256 of the canonical definition the answer was given under"),
    ("session_id", "text", "opaque id of the session"),
    ("participant_no", "whole", "number of the participant within the version, in order of arrival"),
    ("source", "text", "where the participant was recruited"),
    ("locale", "text", "language the questions were read in"),
    ("trial_id", "text", "opaque id of the trial"),
    ("seq", "whole", "place of the trial within its session"),
    (
        "kind",
        "text",
        "real, repeat, gold, attention (a mark says what to choose) or practice; only real and repeat compare methods",
    ),
    ("image_key", "text", "the image"),
    ("stratum", "text", "the image's stratum, empty if there are none"),
    ("criterion", "text", "key of the question"),
    ("protocol", "text", "pairwise or best_of_n"),
    ("methods_shown", "texts", "methods in position order, the leftmost first; gold pictures by their variant"),
    ("position_chosen", "whole", "position of the chosen picture, 0 = left; empty if the outcome is no choice"),
    ("method_chosen", "text", "what stood at that position; empty if the outcome is no choice"),
    ("outcome", "text", "choice, tie (no visible difference) or cant_tell"),
    ("is_repeat_of", "text", "trial_id of the trial that is repeated, else empty"),
    (
        "gold_correct",
        "yes_no",
        "whether a gold trial's right picture was chosen, by the criterion it tests, or an attention trial's by any",
    ),
    ("rt_ms", "whole", "milliseconds from all pictures shown to the last change of this answer"),
    ("first_input_ms", "whole", "milliseconds to the first input"),
    ("n_changes", "whole", "how often the answer was changed"),
    ("zoom_ms", "whole", "milliseconds spent zoomed in"),
    ("flips", "whole", "how often the candidates were flickered"),
    ("hidden_ms", "whole", "milliseconds the page was hidden during the trial"),
    ("viewport", "text", "width x height of the window in CSS pixels"),
    ("dpr", "number", "device pixels per CSS pixel"),
    ("assign_algo", "text", "algorithm that chose the cell"),
    ("propensity", "number", "probability of the assigned cell among the equally good ones"),
    ("issued_at", "time", "when the trial was assigned"),
    ("answered_at", "time", "when the answer was stored"),
    ("used", "yes_no", "false if an exclusion with effect `use` took the answer out"),
    ("exclusion_rules", "texts", "rules in force that took the answer out"),
    (
        "in_primary_set",
        "yes_no",
        "among the first `target` used answers of its cell and criterion from completed sessions: exactly balanced",
    ),
    ("session_state", "text", "state of the session when this was exported"),
)

SESSIONS = _columns(
    ("session_id", "text", "opaque id of the session"),
    ("participant_no", "whole", "number of the participant within the version"),
    ("source", "text", "where the participant was recruited"),
    ("locale", "text", "language"),
    ("state", "text", "created, running, completed, screened_out, declined, abandoned or withdrawn"),
    ("created_at", "time", "when the session began"),
    ("ended_at", "time", "when it ended, empty while it has not"),
    ("duration_s", "whole", "seconds from beginning to end"),
    ("viewport", "text", "width x height of the window in CSS pixels"),
    ("dpr", "number", "device pixels per CSS pixel"),
    ("device", "text", "desktop, tablet, phone or unknown"),
    ("browser", "text", "family of the browser"),
    ("consent_sha256", "text", "SHA-256 of the consent document that was agreed to"),
    ("trials_answered", "whole", "answered trials of every kind"),
    ("accepted", "yes_no", "false if an exclusion with effect `accept` is in force: not to be paid"),
    ("used", "yes_no", "false if an exclusion with effect `use` is in force: not to be analysed"),
)

TRIALS = _columns(
    ("trial_id", "text", "opaque id of the trial"),
    ("session_id", "text", "opaque id of the session"),
    ("seq", "whole", "place within the session"),
    ("kind", "text", "real, repeat, gold, attention or practice"),
    ("image_key", "text", "the image"),
    ("methods_shown", "texts", "methods in position order"),
    ("state", "text", "issued, shown, answered, expired or void"),
    ("is_repeat_of", "text", "trial_id of the trial that is repeated, else empty"),
    ("assign_algo", "text", "algorithm that chose the cell"),
    ("propensity", "number", "probability of the assigned cell among the equally good ones"),
    ("issued_at", "time", "when it was assigned"),
    ("shown_at", "time", "when all its pictures were on the screen"),
    ("answered_at", "time", "when it was answered"),
)

EXCLUSIONS = _columns(
    ("no", "whole", "number of the decision, in order"),
    ("session_id", "text", "session it is about"),
    ("trial_id", "text", "trial of the answer it is about, empty if it is about the session"),
    ("criterion", "text", "criterion of that answer"),
    ("rule", "text", "the rule"),
    ("rule_sha256", "text", "SHA-256 of the rule with its parameters"),
    ("effect", "text", "accept (pay), use (analyse) or flag"),
    ("evidence", "text", "JSON: the numbers that broke the rule, and the reason given"),
    ("actor", "text", "who decided; a program or a role, never a participant"),
    ("at", "time", "when"),
    ("reverses", "whole", "number of the decision that this one undoes"),
)

EVENTS = _columns(
    ("session_id", "text", "opaque id of the session"),
    ("trial_id", "text", "trial that was on the screen, if known"),
    ("type", "text", "what happened in the page"),
    ("client_ms", "whole", "milliseconds on the page's clock since the session's first event"),
    ("server_ms", "whole", "milliseconds from the session's beginning to its arrival here"),
    ("value", "text", "a size, a zoom, a message"),
)

TABLES: Mapping[str, tuple[Column, ...]] = {
    "votes": VOTES,
    "sessions": SESSIONS,
    "trials": TRIALS,
    "exclusions": EXCLUSIONS,
    "events": EVENTS,
}


def codebook(definition: StudyDefinition) -> dict[str, Any]:
    """What every column means, and what the participants of this study were asked, with the hash of every wording."""
    return {
        "types": dict(TYPE_MEANINGS),
        "tables": {
            table: [{"name": column.name, "type": column.type, "meaning": column.meaning} for column in columns]
            for table, columns in TABLES.items()
        },
        "criteria": [
            {
                "key": criterion.key,
                "title": criterion.title,
                "question": criterion.question,
                "question_sha256": {
                    locale: hashlib.sha256(text.encode()).hexdigest() for locale, text in criterion.question.items()
                },
                "allow": list(criterion.allow),
            }
            for criterion in definition.criteria
        ],
        "methods": [{"key": method.key, "role": method.role} for method in definition.methods],
    }
