"""A definition is read strictly, means one thing, and complains in words."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from study.definition import (
    DefinitionError,
    StudyDefinition,
    definition_from,
    in_locale,
    json_schema,
    parse_definition,
    read_definition,
)
from study.preregistration import preregistration

EXAMPLES = sorted((Path(__file__).parents[2] / "study" / "examples").rglob("*.yaml"))

SMALLEST = """
study: small
title: Which is better?
methods: [{key: ours, role: target}, {key: theirs}]
criteria: [{key: best, title: Best, question: "Which is best?"}]
consent: {text: We store your answers.}
"""


def changed(**changes: Any) -> dict[str, Any]:
    return yaml.safe_load(SMALLEST) | changes


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.relative_to(path.parents[1]).as_posix())
def test_every_example_is_valid_for_us_and_for_its_schema(path: Path) -> None:
    study = read_definition(path)
    jsonschema.Draft202012Validator(json.loads(json_schema())).validate(yaml.safe_load(path.read_text()))
    assert study.study == path.stem.replace("_", "-")


def test_the_example_study_asks_a_newcomer_ten_trials_on_the_papers_two_criteria_in_public() -> None:
    study = read_definition(next(path for path in EXAMPLES if path.stem == "example"))
    assert study.plan.real == 10
    assert [criterion.key for criterion in study.criteria] == ["context_stability", "visual_consistency"]
    assert "preference of not generating new elements" in study.criteria[0].question["en"].replace("\n", " ")
    assert all({"en", "zh"} <= set(criterion.question) for criterion in study.criteria)
    assert study.results == "public"


def test_the_papers_study_is_its_section_5_2() -> None:
    study = read_definition(next(path for path in EXAMPLES if path.stem == "asuka_paper"))
    assert (study.protocol, len(study.methods), study.candidates) == ("best_of_n", 9, 9)
    assert study.images.sample
    assert (study.images.sample.n, study.plan.real, study.target.participants) == (40, 40, 100)
    stable, consistent = (criterion.question["en"] for criterion in study.criteria)
    assert "the generated region should be context-stable with surrounding unmasked region" in stable
    assert "with a preference of not generating new elements" in stable
    assert "the visual consistency between masked and unmasked regions" in consistent
    assert [criterion.allow for criterion in study.criteria] == [(), ()]  # the paper asks for the best, without ties
    assert "average selection ratio" in study.analysis.estimand
    assert 40 * 18 * study.target.per_cell <= 100 * 40


def test_the_pairwise_study_asks_for_twelve_answers_per_image_and_pair_of_ninety_six_people() -> None:
    study = read_definition(next(path for path in EXAMPLES if path.stem == "pairwise"))
    assert len(study.pairs) == 8
    assert study.target.participants * study.plan.real == 12 * 40 * len(study.pairs)
    assert (study.golds, study.plan.repeats, study.trials) == (8, 4, 54)


@pytest.mark.parametrize("stem", ["pairwise", "asuka_paper"])
def test_a_ready_study_says_all_that_is_registered_before_it_begins(stem: str) -> None:
    study = read_definition(next(path for path in EXAMPLES if path.stem == stem))
    document = preregistration(study)
    assert study.sha256 in document
    told = [*study.prereg.hypotheses, study.prereg.sample_size, study.prereg.stopping, study.prereg.exclusions]
    told += [study.analysis.estimand, *(criterion.question["en"] for criterion in study.criteria)]
    for text in told:
        assert text
        assert text in document
    for method in study.methods:
        assert f"`{method.key}`" in document
    for exclusion in study.exclusions:
        assert exclusion.rule in document
    assert "Holm" in document
    assert preregistration(read_definition(next(path for path in EXAMPLES if path.stem == stem))) == document


def test_what_a_definition_leaves_open_its_registration_says_is_open() -> None:
    document = preregistration(parse_definition(SMALLEST))
    assert document.count("Not stated.") == 4
    changed_plan = preregistration(definition_from(changed(plan={"real": 7})))
    assert "7 comparisons" in changed_plan
    assert changed_plan != document


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"plan": {"practice": 1}}, "need a question whose right answer can be made"),
        ({"plan": {"real": 12, "repeats": 4}}, "4 repetitions at least 10 trials later do not fit among 12 trials"),
        (
            {
                "plan": {"real": 5, "gold": {"per_criterion": 4}},
                "criteria": [{"key": "a", "title": "A", "question": "A?", "gold": "colour_shift"}],
            },
            "4 gold trials 4 apart, the first after 3, do not fit among 9 trials",
        ),
        ({"plan": {"real": 5, "attention": 4}}, "4 gold and attention trials 4 apart, the first after 3, do not fit"),
        ({"exclusions": [{"rule": "attention"}]}, "the rule attention has nothing to judge; write plan.attention: 2"),
        ({"screen": {"colour_vision": 2, "colour_vision_misses": 2}}, "all 2 colour-vision plates may be misread"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_refused_with_its_numbers(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        definition_from(changed(**changes))


def test_the_hash_is_of_the_canonical_text_and_survives_the_way_through_json() -> None:
    study = parse_definition(SMALLEST)
    assert study.sha256 == hashlib.sha256(study.canonical.encode()).hexdigest()
    again = definition_from(json.loads(study.canonical))
    assert again == study
    assert again.canonical == study.canonical


def test_order_and_defaults_do_not_change_the_hash_but_every_edit_does() -> None:
    study = parse_definition(SMALLEST)
    reordered = yaml.safe_dump(dict(reversed(list(yaml.safe_load(SMALLEST).items()))), sort_keys=False)
    assert parse_definition(reordered).sha256 == study.sha256
    assert definition_from(changed(plan={"real": 40}, results="on_close")).sha256 == study.sha256
    assert definition_from(changed(plan={"real": 39})).sha256 != study.sha256
    assert definition_from(changed(title="Which is better!")).sha256 != study.sha256


def test_a_definition_cannot_be_changed() -> None:
    study = parse_definition(SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        study.plan.real = 3  # type: ignore[misc]


def test_pairs_follow_the_contrasts() -> None:
    three = [{"key": "c", "role": "target"}, {"key": "a"}, {"key": "b"}]
    assert definition_from(changed(methods=three)).pairs == (("a", "c"), ("b", "c"))
    everyone = definition_from(changed(methods=three, contrasts="round_robin"))
    assert everyone.pairs == (("a", "b"), ("a", "c"), ("b", "c"))
    best = definition_from(changed(methods=three, protocol="best_of_n"))
    assert (best.pairs, best.candidates, everyone.candidates) == ((), 3, 2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"titel": "x"}, "titel: there is no such field; known here are analysis"),
        ({"plan": {"reel": 3}}, "plan.reel: there is no such field; known here are attention, gold, practice, real"),
        (
            {"methods": [{"key": "a", "rol": "target"}, {"key": "b"}]},
            r"methods\[0\].rol: there is no such field; known",
        ),
        ({"plan": {"real": "many"}}, r"plan.real: .*integer.*got 'many'"),
        ({"plan": {"real": 0}}, r"plan.real: .*greater than or equal to 1.*got 0"),
        ({"study": "My Study"}, "study: .*got 'My Study'"),
        ({"study": "static"}, "taken by the platform"),
        ({"methods": [{"key": "a"}]}, "methods: .*at least 2"),
        ({"methods": [{"key": "a"}, {"key": "a"}]}, "the method a is given more than once"),
        ({"methods": [{"key": "a"}, {"key": "b"}]}, "needs exactly one method with role: target, found none"),
        ({"methods": [{"key": "a", "role": "target"}, {"key": "b", "dir": "../x"}]}, r"methods\[1\].dir: .*slashes"),
        ({"title": {"English": "x"}}, "'English' is no language code"),
        ({"title": ""}, "the text for 'en' is empty"),
        ({"title": 42}, r"title: give text, .* a number or a date needs quotation marks.*got 42"),
        ({"criteria": []}, "criteria: .*at least 1"),
        ({"images": {"list": ["a"], "sample": {"n": 1, "seed": 1}}}, "either a list or a sample"),
        ({"recruit": {"redirect": "http://x"}}, "begins with https"),
        ({"results": "later"}, "results: .*'public' or 'on_close'.*got 'later'"),
        ({"consent": None}, "consent: "),
        (
            {"protocol": "best_of_n", "methods": [{"key": f"m{n}"} for n in range(13)]},
            "shows all 13 methods at once; 12 is the most",
        ),
    ],
)
def test_each_mistake_is_told_with_its_place_its_value_and_what_to_do(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        definition_from(changed(**changes))


BILLIONS = "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in pairwise("abcdefghijklmnop")
)
"""Fifteen lines of YAML that name a list of 2 * 9^15 values."""


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        definition_from(changed(titel="x", plan={"real": -1}, results="never"))
    assert all(place in str(caught.value) for place in ("titel", "plan.real", "results"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("study: a\nstudy: b", "line 2, column 1: 'study' is given twice"),
        ("plan: {real: 1, real: 2}", "'real' is given twice"),
        ("a: [1", "line 1"),
        ("a: !!python/object:os.system {}", "no YAML"),
        ("- a\n- b", "holds no definition"),
        ("", "holds no definition"),
        ("title: 2026-13-45", "put it into quotation marks"),
        ("a: " + "[" * 2000, "nested so deeply"),
        ("a: &a [x, x]\n" + BILLIONS, "a: there is no such field"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_no_definition_at_all_is_refused(text: str, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        parse_definition(text)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"missing.yaml: No such file"):
        read_definition(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"title: caf\xe9")
    with pytest.raises(DefinitionError, match="not UTF-8 text"):
        read_definition(tmp_path / "latin.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(DefinitionError, match="1000001 bytes"):
        read_definition(tmp_path / "huge.yaml")


def test_a_text_falls_back_to_its_language_and_to_english() -> None:
    texts = {"en": "colour", "zh": "颜色"}
    assert in_locale(texts, "zh-TW") == "颜色"
    assert in_locale(texts, "fi") == "colour"
    assert in_locale({"zh": "颜色"}, "fi") == "颜色"


def test_the_schema_lets_texts_be_plain_strings() -> None:
    schema = json.loads(json_schema())
    validator = jsonschema.Draft202012Validator(schema)
    assert not list(validator.iter_errors(yaml.safe_load(SMALLEST)))
    assert list(validator.iter_errors(changed(titel="x")))
    assert set(schema["properties"]) == set(StudyDefinition.model_fields)
