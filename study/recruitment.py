"""How people arrive from a recruiting platform and go back to it; nothing here touches the database.

A platform's link carries its ids as URL parameters. One of them names the person: it becomes a keyed hash before
anything is stored. The others, with it, are what pays them, and are kept apart and encrypted (`study.payment`).

| source   | link                                                         | way back                               |
|----------|--------------------------------------------------------------|----------------------------------------|
| prolific | ?PROLIFIC_PID={{%PROLIFIC_PID%}}&STUDY_ID=...&SESSION_ID=...  | its own address, with the code         |
| mturk    | ?workerId=...&assignmentId=...&hitId=...                      | the code, typed into the task          |
| sona     | ?survey_code=%SURVEY_CODE%                                    | a `redirect` that names {survey_code}  |
| lab      | ?participant=...                                              | the code, if the definition gives one  |
| public   | no parameters; each visit is a person of its own              | none                                   |
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from study.definition import Recruit, Source

PARAMETERS: Mapping[Source, tuple[str, ...]] = {
    "prolific": ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID"),
    "mturk": ("workerId", "assignmentId", "hitId"),
    "sona": ("survey_code",),
    "lab": ("participant",),
    "public": (),
}
"""URL parameters by source, the one that names the person first (each platform's own documentation)."""

PROLIFIC_RETURN = "https://app.prolific.com/submissions/complete?cc={code}"
"""Prolific's documented address for those who come back; the code says whether they completed or were screened out."""

MTURK_PREVIEW = "ASSIGNMENT_ID_NOT_AVAILABLE"
"""What MTurk sends as assignmentId while a worker only looks at a task (MTurk API, ExternalQuestion)."""

CODE_PLACE = "{code}"
UNFILLED = ("{{%", "%SURVEY_CODE%", "${")
"""Placeholders that a platform should have replaced: a link with one of them was copied, not clicked."""


class ArrivalError(ValueError):
    """Somebody came by a link that is not theirs; the message tells them what to do."""


@dataclass(frozen=True)
class Arrival:
    """Who came.

    Attributes:
        source: the recruiting platform.
        person: what it calls the person; None for a public visitor.
        ids: all that it told, by parameter, for paying; empty for a public visitor.
    """

    source: Source
    person: str | None
    ids: Mapping[str, str]


def arrival(recruit: Recruit, link: Mapping[str, str]) -> Arrival:
    """Who came by a link with these URL parameters; those of no platform are ignored.

    Args:
        recruit: what the study's definition says.
        link: values by parameter, in any order.

    Raises:
        ArrivalError: for another platform's link, one without the person's id, a copied one, or a mere preview.
    """
    wanted = recruit.source
    others = [source for source, names in PARAMETERS.items() if source != wanted and names and link.get(names[0])]
    ids = {name: link[name] for name in PARAMETERS[wanted] if link.get(name)}
    if others and not ids:
        raise ArrivalError(f"This study takes participants from {wanted}, not {others[0]}; use the link you got.")
    if wanted == "public":
        return Arrival(wanted, None, {})
    person = ids.get(PARAMETERS[wanted][0], "").strip()
    if not person:
        raise ArrivalError(f"Your {wanted} id is missing from the link; open the study from {wanted}.")
    if ids.get("assignmentId") == MTURK_PREVIEW:
        raise ArrivalError("This is a preview. Accept the task first, then open the study from it again.")
    if any(place in person for place in UNFILLED):
        raise ArrivalError(f"The link still holds the placeholder {person!r}; open the study from {wanted} itself.")
    return Arrival(wanted, person, ids)


def participant_hash(key: bytes, source: str, person: str) -> str:
    """What the database knows a person as: HMAC-SHA256 under the study's key, in hexadecimal.

    Args:
        key: the study's, 32 bytes; without it nobody can try ids until one fits.
        source: the recruiting platform, so that equal ids of two platforms are two people.
        person: the id there.
    """
    return hmac.digest(key, f"participant\n{source}\n{person}".encode(), "sha256").hex()


def way_back(recruit: Recruit, code: str | None, *, completed: bool) -> str | None:
    """Where the participant goes at the end, None if nowhere.

    Who has no code to bring is sent back only when they completed: an address without a code often grants the credit.
    Places other than {code}, such as {survey_code}, are filled in by the page from its own address, so that the id
    need not be kept here.
    """
    template = recruit.redirect or (PROLIFIC_RETURN if recruit.source == "prolific" else None)
    if template is None or (code is None and (CODE_PLACE in template or not completed)):
        return None
    return template.replace(CODE_PLACE, code or "")
