"""What the participant's page and the server say to each other; every trial among it is a `BlindTrial`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from study.blinding import BlindTrial
from study.definition import Flaw

Source = Literal["public", "prolific", "mturk", "sona", "lab"]
Outcome = Literal["choice", "tie", "cant_tell"]
SessionState = Literal[
    "created", "screened", "screened_out", "consented", "declined", "practising", "running",
    "completed", "abandoned", "withdrawn", "full", "paused", "closed",
]  # fmt: skip
"""The last three are said, not stored. `full`: screened out after the consent, because nothing was left to ask;
`paused`, `closed`: of a session under way, while the study rests or has ended."""

LONGEST_EXTERNAL_ID = 200
"""Prolific's ids have 24 characters, MTurk's assignment ids 30, SONA's are numbers; 200 is our choice of a bound."""

LONGEST_TIME_MS = 24 * 3600 * 1000
"""No time within a session is longer than the session may live."""

MOST_CRITERIA = 16
MOST_EVENTS = 200
"""Per request; the page sends events every few seconds. Our choice."""

Milliseconds = Annotated[int, Field(ge=0, le=LONGEST_TIME_MS)]
Locale = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=20)]


class Message(BaseModel):
    """Frozen, refuses fields it does not know, and takes no text or yes for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# ---------------------------------------------------------------------------------------------- page to server


class Proof(Message):
    """That the visitor's computer worked for this session: SHA-256("challenge:answer") begins with zero bits."""

    challenge: Annotated[str, Field(max_length=200, description="of GET /challenge")]
    answer: Annotated[int, Field(ge=0, le=2**53)]


class JoinRequest(Message):
    """POST /sessions: begin, or come back as the same participant of a recruiting platform.

    A page sends the parameters of its own address as `link`; a program may name `source` and `external_id` instead.
    """

    study: Annotated[str, Field(max_length=80, description="the study's slug")]
    link: dict[
        Annotated[str, Field(max_length=40)], Annotated[str, Field(min_length=1, max_length=LONGEST_EXTERNAL_ID)]
    ] = Field(default_factory=dict, max_length=12, description="PROLIFIC_PID, workerId, survey_code, participant ...")
    source: Source | None = None
    external_id: Annotated[str, Field(min_length=1, max_length=LONGEST_EXTERNAL_ID)] | None = Field(
        default=None, description="the person's id at the source; None for a public visitor"
    )
    locale: Locale = "en"
    proof: Proof | None = None


class ConsentRequest(Message):
    """POST /sessions/me/consent."""

    accepted: bool
    boxes: tuple[Annotated[str, Field(max_length=500)], ...] = Field(
        default=(), max_length=20, description="keys of the ticked boxes; all of them are needed to accept"
    )
    locale: Locale = "en"


class EnvironmentReport(Message):
    """POST /sessions/me/environment: how the study is being looked at; no user agent, no address."""

    css_width: Annotated[int, Field(ge=1, le=100_000)]
    css_height: Annotated[int, Field(ge=1, le=100_000)]
    device_pixel_ratio: Annotated[float, Field(gt=0, le=20)] = 1.0
    touch: bool = False
    device: Literal["desktop", "tablet", "phone", "unknown"] = "unknown"
    browser: Literal["chromium", "firefox", "safari", "other"] = "other"


class PlateAnswers(Message):
    """POST /sessions/me/plates: what was read on the colour-vision plates, in their order."""

    figures: Annotated[tuple[Annotated[str, Field(max_length=1)], ...], Field(max_length=12)] = Field(
        description="a digit each, or nothing where none was seen"
    )


class CriterionAnswer(Message):
    """The answer to one question of a trial."""

    criterion: Annotated[str, Field(max_length=80)]
    outcome: Outcome
    position: Annotated[int, Field(ge=0, le=99)] | None = Field(
        default=None, description="index of the chosen candidate, 0 = left; None exactly when the outcome is no choice"
    )
    rt_ms: Milliseconds | None = Field(
        default=None, description="from all pictures decoded to the last change of this answer; None when not measured"
    )
    first_input_ms: Milliseconds | None = None
    n_changes: Annotated[int, Field(ge=0, le=10_000)] = 0
    zoom_ms: Milliseconds = 0
    flips: Annotated[int, Field(ge=0, le=100_000)] = 0
    hidden_ms: Milliseconds = 0


class AnswerRequest(Message):
    """POST /trial/{id}/answer with header Idempotency-Key: the answers to all questions of the trial at once."""

    responses: Annotated[tuple[CriterionAnswer, ...], Field(min_length=1, max_length=MOST_CRITERIA)]


class ClientEvent(Message):
    """Something that happened in the page, on the page's clock."""

    type: Literal[
        "visible", "hidden", "blur", "focus", "resize", "zoom", "flip", "peek", "decode", "retry", "error"
    ]  # fmt: skip
    t_ms: Annotated[int, Field(ge=0, le=2**53)] = Field(description="Date.now() of the page, or ms since it opened")
    trial: Annotated[str, Field(max_length=100)] | None = Field(default=None, description="the trial's id")
    value: Annotated[str, Field(max_length=100)] | None = Field(default=None, description="a size, a zoom, a message")


class EventsRequest(Message):
    """POST /events; `token` is the session's, for navigator.sendBeacon, which cannot set the Authorization header."""

    events: Annotated[tuple[ClientEvent, ...], Field(max_length=MOST_EVENTS)]
    token: Annotated[str, Field(max_length=100)] | None = None


class WithdrawRequest(Message):
    """POST /sessions/me/withdraw: stop; with `erase`, delete what was answered too."""

    erase: bool = False


# ---------------------------------------------------------------------------------------------- server to page


class CriterionView(Message):
    """One question; texts by locale, `en` always among them."""

    key: str
    title: dict[str, str]
    question: dict[str, str]
    allow_tie: bool
    allow_cant_tell: bool


class ConsentView(Message):
    """What is agreed to; texts by locale."""

    text: dict[str, str]
    version: str
    boxes: dict[str, dict[str, str]] = Field(description="box key -> text by locale; all must be ticked")


class DisplayView(Message):
    """How the page shows the pictures."""

    native_px: bool
    zoom: bool
    flicker: bool
    show_input: Literal["always", "toggle", "never"]


class ScreenView(Message):
    """The smallest viewport a participant may take part with."""

    min_css_width: int
    min_css_height: int
    allow_touch: bool
    colour_vision: int = Field(description="plates to read before the study, each with one digit or none")


class StudyView(Message):
    """GET /studies/{slug}: what a visitor may know of a study before joining."""

    slug: str
    title: dict[str, str]
    introduction: dict[str, str]
    status: Literal["draft", "pilot", "live", "paused", "draining", "closed"]
    protocol: Literal["pairwise", "best_of_n"]
    candidates: int = Field(description="pictures to choose among in each trial")
    practice: int = Field(description="practice trials before them")
    trials: int = Field(description="trials of one session, without the practice")
    criteria: tuple[CriterionView, ...]
    consent: ConsentView
    display: DisplayView
    screen: ScreenView
    min_view_ms: int = Field(description="answers are accepted by the page from then on after the pictures appeared")
    soft_max_s: int = Field(description="after this the page may remind the participant to go on")
    results_public: bool = Field(description="the rates may be shown while the study runs")
    proof_of_work: int = Field(description="leading zero bits of SHA-256('challenge:answer') to bring; 0 for none")
    attention: bool = Field(description="in some trials the picture to choose is marked; the page explains the mark")


class StudyList(Message):
    """GET /studies: the studies that can be joined, newest first."""

    studies: tuple[StudyView, ...]


class Challenge(Message):
    """GET /challenge: what to work on before POST /sessions, in a study whose `proof_of_work` is not 0."""

    challenge: str


class Progress(Message):
    """How far a session is."""

    answered: int
    of: int


class SessionView(Message):
    """GET /sessions/me and the answer to consent, environment, withdraw, heartbeat."""

    study: str
    state: SessionState
    progress: Progress
    locale: str


class Joined(Message):
    """POST /sessions: keep `token` (URL fragment or localStorage) and send it as `Authorization: Bearer <token>`."""

    token: str
    session: SessionView


class Completion(Message):
    """GET /sessions/me/completion, and part of the reply to the last answer."""

    code: str | None = Field(description="to hand in at the recruiting platform")
    redirect: str | None = Field(default=None, description="where the recruiting platform wants the participant back")


class PracticeResult(Message):
    """What was right in a practice trial, told once it is answered."""

    correct: bool
    right: int = Field(description="position of the right answer")
    flaw: Flaw | None = Field(description="what is wrong with the others")


class TrialReply(Message):
    """GET /trial and POST /trial/{id}/answer.

    `trial` is present exactly when the state is `practising` or `running`. `upcoming` is the one after it, already
    assigned: fetch and decode its pictures while the current one is being looked at. `completion` is present when the
    state is `completed` or `full`, `practice` when a practice trial was answered. `progress` leaves the practice out.
    """

    state: SessionState
    progress: Progress
    trial: BlindTrial | None = None
    upcoming: BlindTrial | None = None
    completion: Completion | None = None
    practice: PracticeResult | None = None


class Problem(Message):
    """The body of every reply that is no success: one sentence to show, and a word for the program."""

    error: str
    code: Literal[
        "bad_request", "unknown_session", "unknown_study", "unknown_trial", "not_found", "not_open", "consent_needed",
        "already_answered", "late", "wrong_answer", "too_large", "not_public", "too_many",
    ]  # fmt: skip
