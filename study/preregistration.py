"""What a study promises before the first answer, as a document to deposit; it carries the hash of the definition."""

from collections.abc import Iterable

from study.definition import StudyDefinition, in_locale

LOCALE = "en"
"""Of the document; what a definition says in other languages is in the definition itself."""

_TIES = {
    "half": "counted as half an answer for each side",
    "dropped": "left out of the primary analysis and reported beside it",
    "davidson": "modelled (Davidson, 1970)",
}
_MULTIPLICITY = {
    "holm": "Holm's method over all tests of the primary estimand",
    "none": "none; every test is reported",
}
_RESULTS = {
    "on_close": "Nobody sees a rate, not even under aliases, before the study is closed.",
    "public": "The rates are shown to everybody while the study runs.",
}


def preregistration(definition: StudyDefinition) -> str:
    """The definition as a Markdown document for a registry; the same definition gives the same bytes."""
    sections = (
        ("Hypotheses", _numbered(definition.prereg.hypotheses)),
        ("Design", _design(definition)),
        ("Questions", _questions(definition)),
        ("Methods", _listed(_method(method.key, method.role) for method in definition.methods)),
        ("Sample size", _stated(definition.prereg.sample_size)),
        ("Stopping", f"{_stated(definition.prereg.stopping)}\n\n{_RESULTS[definition.results]}"),
        ("Exclusions", f"{_stated(definition.prereg.exclusions)}\n\n{_rules(definition)}"),
        ("Analysis", _analysis(definition)),
    )
    head = (
        f"# Pre-registration: {in_locale(definition.title, LOCALE)}\n\n"
        f"Study `{definition.study}`, definition with SHA-256 `{definition.sha256}`. Every exported answer carries "
        "this hash; any change to the definition has another one.\n"
    )
    return head + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections)


def _design(definition: StudyDefinition) -> str:
    plan, target = definition.plan, definition.target
    asked = (
        f"{plan.real} comparisons, each image at most once; {plan.practice} to practise, {definition.golds} with a "
        f"known right answer, {plan.attention} whose pictures are marked with the one to choose, and {plan.repeats} "
        "asked again with the sides swapped"
    )
    primary = "the primary analysis reads the first answers of each cell up to its target, so it is exactly balanced"
    window = f"{definition.screen.min_css_width} x {definition.screen.min_css_height} CSS pixels"
    compared = {
        "best_of_n": f"the best of {definition.candidates} results of one photograph is selected",
        "pairwise": f"two results of one photograph are compared; {len(definition.pairs)} pairs of methods",
    }[definition.protocol]
    per_cell = "per image and order" if definition.protocol == "best_of_n" else "per image and pair, sides balanced"
    lines = [
        f"Protocol: {compared}, blind, in balanced order.",
        f"Images: {_images(definition)}.",
        f"Each person: {asked}.",
        f"Target: {target.participants} complete sessions; {target.per_cell} answers {per_cell}; {primary}.",
        f"Results that differ from the photograph outside the hole: {_OUTSIDE[definition.outside_hole]}.",
        f"Screening: a window of at least {window}; {definition.screen.colour_vision or 'no'} colour-vision plates.",
        f"Participants come from: {definition.recruit.source}.",
    ]
    return _listed(lines)


_OUTSIDE = {"refuse": "refused", "composite": "the known pixels are put back, for all methods alike"}


def _images(definition: StudyDefinition) -> str:
    choice = definition.images
    if choice.list is not None:
        return f"{len(choice.list)}, listed in the definition"
    if choice.sample is not None:
        return f"{choice.sample.n}, drawn with seed {choice.sample.seed} from those there are"
    return "all there are"


def _questions(definition: StudyDefinition) -> str:
    answers = {"tie": "no visible difference", "cant_tell": "can't tell"}
    return _listed(
        f"`{criterion.key}`: {in_locale(criterion.question, LOCALE)} "
        f"(besides a choice: {', '.join(answers[each] for each in criterion.allow) or 'nothing, the choice is forced'})"
        for criterion in definition.criteria
    )


def _method(key: str, role: str) -> str:
    return f"`{key}` (target)" if role == "target" else f"`{key}`"


def _rules(definition: StudyDefinition) -> str:
    effects = {"accept": "not paid", "use": "not analysed", "flag": "marked only"}
    return _listed(
        f"{rule.rule}: {effects[rule.effect]}"
        + "".join(f", {name} = {value:g}" for name, value in sorted(rule.params.items()))
        for rule in definition.exclusions
    )


def _analysis(definition: StudyDefinition) -> str:
    analysis = definition.analysis
    return _listed(
        (
            f"Estimand: {analysis.estimand}",
            f"Answers of no visible difference: {_TIES[analysis.ties]}.",
            f"Multiplicity: {_MULTIPLICITY[analysis.multiplicity]}.",
            f"Level: {analysis.alpha:g}.",
        )
    )


def _stated(text: str | None) -> str:
    return text or "Not stated."


def _numbered(texts: Iterable[str]) -> str:
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1)) or "Not stated."


def _listed(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts) or "None."
