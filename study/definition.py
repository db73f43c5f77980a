"""What a study is: one frozen model read from YAML, with one canonical form and one hash; nothing here runs a study."""

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

SCHEMA_VERSION = 1
"""Raised when a definition of today would mean something else tomorrow."""

LARGEST_DEFINITION = 1_000_000
"""Bytes. A definition is typed by people; a megabyte of YAML is a mistake (our choice)."""

RESERVED_SLUGS = frozenset({"api", "s", "static", "admin", "healthz"})
"""Words that already mean something behind /study/."""

KEY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"
"""Keys name folders, files and columns, so they look alike everywhere."""

SLUG_PATTERN = r"^[a-z0-9][a-z0-9-]{0,79}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
LOCALE_PATTERN = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
FALLBACK_LOCALE = "en"
PAIR = 2
MOST_CANDIDATES = 12
"""Pictures that can still be compared at a glance; the paper shows 9 (section 5.2). Our choice of a bound."""

Flaw = Literal["colour_shift", "foreign_object"]
"""What is made wrong with a picture so that another one is known to be the right answer; see `study.golds`."""

Key = Annotated[str, Field(pattern=KEY_PATTERN)]


class DefinitionError(ValueError):
    """A definition that cannot be a study; the message names each wrong place, its value and what to do."""


def _by_locale(value: object) -> object:
    if isinstance(value, str):
        value = {FALLBACK_LOCALE: value}
    if isinstance(value, Mapping):
        if not value:
            raise ValueError("give the text at least in one language, for example `en: ...`")
        wrong = [key for key in value if not re.match(LOCALE_PATTERN, str(key))]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no language code; write texts as `en: ...`, `zh: ...`")
        empty = [key for key, text in value.items() if isinstance(text, str) and not text.strip()]
        if empty:
            raise ValueError(f"the text for {empty[0]!r} is empty")
    return value


Text = Annotated[dict[str, str], BeforeValidator(_by_locale)]
"""A text by locale; a plain string in the YAML means English."""


class Part(BaseModel):
    """Frozen, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodEntry(Part):
    """One method that takes part."""

    key: Key = Field(description="the name of its folder of results")
    role: Literal["target", "baseline"] = "baseline"
    dir: str | None = Field(default=None, description="the folder's name where it differs from the key")

    @field_validator("dir")
    @classmethod
    def _one_folder(cls, value: str | None) -> str | None:
        if value is not None and not re.match(KEY_PATTERN, value):
            raise ValueError("give the name of one folder, without slashes")
        return value

    @property
    def folder(self) -> str:
        """The folder of its results, below the results directory."""
        return self.dir or self.key


class ImageSample(Part):
    """A seeded draw from the images there are."""

    n: int = Field(ge=1, le=100_000)
    seed: int = Field(ge=0, lt=2**63)


class ImageChoice(Part):
    """Which images are shown: all there are, those listed, or a seeded sample."""

    list: tuple[Key, ...] | None = Field(default=None, description="file names without their ending")
    sample: ImageSample | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.list is not None and self.sample is not None:
            raise ValueError("give either a list or a sample, not both")
        if self.list is not None:
            _refuse_repeats(self.list, "image")
        return self


class Criterion(Part):
    """One question of every trial."""

    key: Key
    title: Text
    question: Text
    allow: tuple[Literal["tie", "cant_tell"], ...] = Field(
        default=("tie",), description="answers besides a choice; leave empty for forced choice, as in the paper"
    )
    gold: Flaw | None = Field(
        default=None, description="how pictures with a known right answer to this question are made, if they are"
    )


class GoldPlan(Part):
    """Trials whose right answer is known, hidden among the others."""

    per_criterion: int = Field(default=0, ge=0, le=20, description="for each question that says how to make them")
    first_after: int = Field(default=3, ge=1, le=100, description="trials before the first of them")
    min_gap: int = Field(default=4, ge=1, le=100, description="from one to the next, in trials")


class Plan(Part):
    """What one participant is asked."""

    practice: int = Field(default=0, ge=0, le=20, description="trials before, whose right answer is then told with why")
    real: int = Field(default=40, ge=1, le=1000, description="trials that count; the paper asks 40 (section 5.2)")
    gold: GoldPlan = GoldPlan()
    attention: int = Field(
        default=0,
        ge=0,
        le=10,
        description="trials whose pictures are marked with the one to choose; placed among the golds, as far apart",
    )
    repeats: int = Field(default=0, ge=0, le=100, description="trials asked again with the sides swapped")
    repeat_gap: int = Field(default=10, ge=1, le=100, description="from a trial to its repetition at least, in trials")


class Timing(Part):
    """Times of a trial and of a session."""

    min_view_ms: int = Field(default=800, ge=0, le=60_000, description="answers are taken from then on")
    soft_max_s: int = Field(default=60, ge=5, le=3600, description="a reminder appears after this")
    idle_lease_s: int = Field(default=600, ge=30, le=86_400, description="a silent participant's trials go to others")
    session_ttl_h: int = Field(default=24, ge=1, le=720, description="a session can be resumed for so long")


class Target(Part):
    """When there are enough answers."""

    per_cell: int = Field(
        default=12,
        ge=1,
        le=100_000,
        description="answers per image and pair, both sides together; in best_of_n per image and order",
    )
    participants: int = Field(default=96, ge=1, le=1_000_000, description="completed sessions")


class Screen(Part):
    """The smallest viewport, in CSS pixels."""

    min_css_width: int = Field(default=320, ge=200, le=10_000)
    min_css_height: int = Field(default=320, ge=200, le=10_000)
    allow_touch: bool = True
    colour_vision: int = Field(default=0, ge=0, le=12, description="plates with a figure that differs in hue alone")
    colour_vision_misses: int = Field(default=1, ge=0, le=11, description="plates that may be misread")

    @model_validator(mode="after")
    def _can_fail(self) -> Self:
        if self.colour_vision and self.colour_vision_misses >= self.colour_vision:
            raise ValueError(
                f"all {self.colour_vision} colour-vision plates may be misread; lower colour_vision_misses"
            )
        return self


class Display(Part):
    """How the pictures are shown."""

    native_px: bool = True
    zoom: bool = True
    flicker: bool = True
    show_input: Literal["always", "toggle", "never"] = "always"


Source = Literal["public", "prolific", "mturk", "sona", "lab"]
"""Where a participant was recruited; paid and unpaid answers never pool."""


class Codes(Part):
    """Completion codes of the recruiting platform, one for each way a session can end."""

    complete: str | None = Field(default=None, max_length=100, description="without it everybody gets one of their own")
    screened_out: str | None = Field(default=None, max_length=100)
    no_consent: str | None = Field(default=None, max_length=100)


class Recruit(Part):
    """Where participants come from, and where they go afterwards."""

    source: Source = "public"
    codes: Codes = Codes()
    redirect: str | None = Field(
        default=None,
        max_length=500,
        description=(
            "https address a participant returns to; {code} is filled in, and so are the parameters of the link they "
            "came by, such as {survey_code}. Prolific's own is the default there"
        ),
    )
    proof_of_work: int = Field(
        default=0,
        ge=0,
        le=24,
        description="leading zero bits a public visitor's computer searches for before a session begins; 0 asks none",
    )

    @field_validator("redirect")
    @classmethod
    def _https(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("https://"):
            raise ValueError("give an address that begins with https://")
        return value

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        codes = [code for code in (self.codes.complete, self.codes.screened_out, self.codes.no_consent) if code]
        if len(codes) != len(set(codes)):
            raise ValueError("two ways to end share a completion code, so the platform could not tell them apart")
        if self.source == "prolific" and self.codes.complete is None:
            raise ValueError("codes.complete is missing; copy the completion code that Prolific made for this study")
        if self.proof_of_work and self.source != "public":
            raise ValueError(f"proof_of_work is for public visitors; people from {self.source} are known by their ids")
        return self


class Consent(Part):
    """What participants agree to."""

    text: Text
    version: str = Field(default="1", max_length=40)
    boxes: dict[Key, Text] = Field(default_factory=dict, description="statements that must all be ticked")


class Privacy(Part):
    """How long what could identify a participant is kept."""

    retention_days: int = Field(
        default=90, ge=0, le=3650, description="the platform's ids are kept, encrypted, for so long after they arrive"
    )


RULES: Mapping[str, Mapping[str, float]] = {
    "incomplete": {},
    "gold": {"least_share": 0.875},
    "attention": {"most_failed": 1},
    "speed": {"fast_ms": 800, "most_fast_share": 0.2, "least_median_ms": 1500},
    "side_bias": {"p": 1e-4},
    "hidden": {"most_share": 0.3},
    "duplicate_person": {},
    "small_screen": {},
    "repeats": {"least_share": 0.75},
    "ties": {"most_share": 0.8},
    "signal": {},
}
"""What a session can be judged by (`study.quality`), with the parameters of each and their defaults."""

PAYING_RULES = frozenset({"incomplete", "attention", "speed", "duplicate_person"})
"""What may cost a participant their pay: platforms let nobody be refused for the rest (Prolific's policy)."""

FLAGGING_RULES = frozenset({"repeats", "ties", "signal"})
"""What only draws attention: honest people break these, or the defence itself may be at fault."""


class Exclusion(Part):
    """A rule, stated in advance, by which a session is not paid, not analysed, or only marked."""

    rule: Literal[
        "incomplete", "gold", "attention", "speed", "side_bias", "hidden", "duplicate_person", "small_screen",
        "repeats", "ties", "signal",
    ]  # fmt: skip
    params: dict[str, float] = Field(default_factory=dict, description="those left out have their defaults")
    effect: Literal["accept", "use", "flag"] = Field(
        default="flag", description="accept: not paid; use: not analysed; flag: only marked"
    )

    @model_validator(mode="after")
    def _is_a_fair_rule(self) -> Self:
        known = RULES[self.rule]
        wrong = sorted(set(self.params) - set(known))
        if wrong:
            raise ValueError(f"{self.rule} has no parameter {wrong[0]!r}; it has {', '.join(known) or 'none'}")
        if self.rule in FLAGGING_RULES and self.effect != "flag":
            raise ValueError(f"{self.rule} may only flag: honest people break it too; write effect: flag")
        if self.effect == "accept" and self.rule not in PAYING_RULES:
            raise ValueError(
                f"{self.rule} may not cost a participant their pay (only {', '.join(sorted(PAYING_RULES))} may); "
                "write effect: use"
            )
        return self


class AnalysisPlan(Part):
    """The analysis, stated in advance."""

    estimand: str = Field(default="preference rate of the target over each baseline", max_length=1000)
    ties: Literal["half", "dropped", "davidson"] = "half"
    multiplicity: Literal["holm", "none"] = "holm"
    alpha: float = Field(default=0.05, gt=0, lt=0.5)


class Preregistration(Part):
    """What is stated before the first answer, and where it was deposited."""

    hypotheses: tuple[Annotated[str, Field(min_length=1, max_length=2000)], ...] = ()
    sample_size: str | None = Field(default=None, max_length=2000, description="how many people, and why so many")
    stopping: str | None = Field(default=None, max_length=2000, description="when nobody is asked any more")
    exclusions: str | None = Field(default=None, max_length=4000, description="who is left out, in words")
    url: str | None = Field(default=None, max_length=500)
    sha256: Annotated[str, Field(pattern=SHA256_PATTERN)] | None = None


class StudyDefinition(Part):
    """A whole study. Any change is a new version with another hash; answers under different hashes never pool."""

    schema_version: Literal[1] = SCHEMA_VERSION
    study: Annotated[str, Field(pattern=SLUG_PATTERN, description="the slug: /study/<slug>")]
    title: Text
    introduction: Text | None = None
    protocol: Literal["pairwise", "best_of_n"] = "pairwise"
    methods: Annotated[tuple[MethodEntry, ...], Field(min_length=2, max_length=100)]
    contrasts: Literal["target_vs_each", "round_robin"] = "target_vs_each"
    images: ImageChoice = ImageChoice()
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1, max_length=16)]
    outside_hole: Literal["refuse", "composite"] = Field(
        default="refuse",
        description="a result that changed pixels outside the hole is refused, or known pixels are put back in all",
    )
    plan: Plan = Plan()
    timing: Timing = Timing()
    target: Target = Target()
    screen: Screen = Screen()
    display: Display = Display()
    recruit: Recruit = Recruit()
    consent: Consent
    privacy: Privacy = Privacy()
    exclusions: tuple[Exclusion, ...] = ()
    analysis: AnalysisPlan = AnalysisPlan()
    prereg: Preregistration = Preregistration()
    results: Literal["public", "on_close"] = "on_close"

    @field_validator("study")
    @classmethod
    def _free_slug(cls, value: str) -> str:
        if value in RESERVED_SLUGS:
            raise ValueError(f"the address /study/{value} is taken by the platform itself; choose another slug")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _refuse_repeats([method.key for method in self.methods], "method")
        _refuse_repeats([method.folder for method in self.methods], "method folder")
        _refuse_repeats([criterion.key for criterion in self.criteria], "criterion")
        targets = [method.key for method in self.methods if method.role == "target"]
        if self.protocol == "pairwise" and self.contrasts == "target_vs_each" and len(targets) != 1:
            raise ValueError(
                f"contrasts: target_vs_each needs exactly one method with role: target, found {targets or 'none'}; "
                "mark one, or write contrasts: round_robin"
            )
        if self.protocol == "best_of_n" and len(self.methods) > MOST_CANDIDATES:
            raise ValueError(f"best_of_n shows all {len(self.methods)} methods at once; {MOST_CANDIDATES} is the most")
        self._refuse_crowded_plan()
        return self

    def _refuse_crowded_plan(self) -> None:
        plan, tests = self.plan, self.golds + self.plan.attention
        if (plan.practice or plan.gold.per_criterion) and not self.gold_criteria:
            raise ValueError(
                "plan: practice and gold trials need a question whose right answer can be made; write "
                "gold: colour_shift or gold: foreign_object at a criterion"
            )
        if tests and plan.gold.first_after + (tests - 1) * plan.gold.min_gap >= self.trials:
            both = "gold and attention trials" if plan.attention else "gold trials"
            raise ValueError(
                f"plan.gold: {tests} {both} {plan.gold.min_gap} apart, the first after {plan.gold.first_after}, "
                f"do not fit among {self.trials} trials; lower gold.min_gap or ask fewer of them"
            )
        if not plan.attention and any(rule.rule == "attention" for rule in self.exclusions):
            raise ValueError("exclusions: the rule attention has nothing to judge; write plan.attention: 2, or drop it")
        if plan.repeats and plan.repeat_gap + plan.repeats > plan.real:
            raise ValueError(
                f"plan.repeats: {plan.repeats} repetitions at least {plan.repeat_gap} trials later do not fit among "
                f"{plan.real} trials; lower repeats or repeat_gap"
            )

    @property
    def gold_criteria(self) -> tuple[Criterion, ...]:
        """The questions for which pictures with a known right answer are made."""
        return tuple(criterion for criterion in self.criteria if criterion.gold)

    @property
    def golds(self) -> int:
        """Gold trials of one session."""
        return self.plan.gold.per_criterion * len(self.gold_criteria)

    @property
    def trials(self) -> int:
        """Trials of one session after the practice."""
        return self.plan.real + self.golds + self.plan.attention + self.plan.repeats

    @property
    def candidates(self) -> int:
        """Pictures to choose among in each trial."""
        return PAIR if self.protocol == "pairwise" else len(self.methods)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of method keys that are compared, each with the smaller key first, sorted; empty for best_of_n."""
        if self.protocol == "best_of_n":
            return ()
        keys = sorted(method.key for method in self.methods)
        every = [(low, high) for at, low in enumerate(keys) for high in keys[at + 1 :]]
        if self.contrasts == "round_robin":
            return tuple(every)
        target = next(method.key for method in self.methods if method.role == "target")
        return tuple(pair for pair in every if target in pair)

    @property
    def canonical(self) -> str:
        """The definition as JSON in one form: sorted keys, no blanks, defaults written out."""
        plain = self.model_dump(mode="json")
        return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """The hash of the canonical form, to pre-register and to stand in every exported row."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


def read_definition(path: Path) -> StudyDefinition:
    """Read a definition from a YAML file.

    Raises:
        DefinitionError: naming the file and every wrong place in it.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_DEFINITION:
            raise DefinitionError(f"{path} has {size} bytes; a definition has at most {LARGEST_DEFINITION}.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DefinitionError(f"Cannot read the definition {path}: {error.strerror}; check the path.") from error
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    try:
        return parse_definition(text)
    except DefinitionError as error:
        raise DefinitionError(f"{path}: {error}") from error


def parse_definition(text: str) -> StudyDefinition:
    """Read a definition from YAML text.

    Raises:
        DefinitionError: naming every wrong place.
    """
    try:
        data = yaml.load(text, Loader=_OneMeaningLoader)  # noqa: S506 - a SafeLoader that also refuses repeated keys
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "unknown place"
        raise DefinitionError(f"This is no YAML ({where}: {error.problem}); correct that line.") from error
    except yaml.YAMLError as error:
        raise DefinitionError(f"This is no YAML: {error}.".replace("\n", " ")) from error
    except RecursionError as error:
        raise DefinitionError("Lists within lists without end: no definition is nested so deeply.") from error
    except ValueError as error:  # such as a date that is none: 2026-13-45
        raise DefinitionError(f"A value cannot be read ({error}); put it into quotation marks.") from error
    if not isinstance(data, dict):
        raise DefinitionError("The file holds no definition: it must be a list of `field: value` lines at the top.")
    return definition_from(data)


def definition_from(data: Mapping[str, Any]) -> StudyDefinition:
    """Check plain data (from YAML, or the canonical JSON stored with a study) and make it a definition.

    Raises:
        DefinitionError: naming every wrong place.
    """
    try:
        return StudyDefinition.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise DefinitionError("; ".join(_in_words(problem) for problem in problems) + ".") from error


def json_schema() -> str:
    """The JSON Schema of a definition, for editors that check YAML while it is typed."""
    schema = StudyDefinition.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    texts = {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}]}
    _let_texts_be_strings(schema, texts)
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def in_locale(text: Mapping[str, str], locale: str) -> str:
    """The text in a locale, else in its language, else in English, else in the first language there is."""
    for candidate in (locale, locale.partition("-")[0], FALLBACK_LOCALE):
        if candidate in text:
            return text[candidate]
    return next(iter(text.values()), "")


class _OneMeaningLoader(yaml.SafeLoader):
    """YAML quietly keeps the last of two equal keys; a study must not depend on which."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - yaml's own signature
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(self.construct_object(key_node, deep=True))
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _refuse_repeats(names: Sequence[str], what: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"the {what} {', '.join(repeated)} is given more than once; keep one")


LONGEST_SHOWN_VALUE = 60

_VALUES = reprlib.Repr()
"""Writes no more of a value than is shown: a few lines of YAML can name a list of billions of values."""
_VALUES.maxstring = 1000
_VALUES.maxlevel = 2


def _in_words(problem: ErrorDetails) -> str:
    place = ""
    for step in problem["loc"]:
        place += f"[{step}]" if isinstance(step, int) else f".{step}" if place else str(step)
    value = _VALUES.repr(problem["input"])
    shown = value if len(value) <= LONGEST_SHOWN_VALUE else value[:LONGEST_SHOWN_VALUE] + "..."
    if problem["type"] == "extra_forbidden":
        known = ", ".join(sorted(_fields_at(problem["loc"][:-1])))
        return f"{place}: there is no such field; known here are {known}" if known else f"{place}: no such field"
    if problem["type"] == "missing":
        return f"{place} is missing; add it"
    told = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "dict_type":
        told = "give text, or `key: value` lines; what reads as a number or a date needs quotation marks to be text"
    told = told[:1].lower() + told[1:]
    return f"{place or 'the definition'}: {told}" + ("" if isinstance(problem["input"], Mapping) else f" (got {shown})")


def _fields_at(place: Sequence[int | str]) -> set[str]:
    here: type[BaseModel] | None = StudyDefinition
    for step in place:
        if isinstance(step, int) or here is None:
            continue
        here = _model_within(here.model_fields[step].annotation) if step in here.model_fields else None
    return set(here.model_fields) if here else set()


def _model_within(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_within(part) for part in getattr(annotation, "__args__", ()))
    return next((model for model in inner if model), None)


def _let_texts_be_strings(schema: dict[str, Any], texts: dict[str, Any]) -> None:
    plain_text = {"additionalProperties": {"type": "string"}, "type": "object"}
    for holder in (schema, *schema["$defs"].values()):
        for name, field in holder.get("properties", {}).items():
            kind = {key: field.get(key) for key in plain_text}
            if kind == plain_text:
                holder["properties"][name] = {k: field[k] for k in ("description", "title") if k in field} | texts
