"""A run record comes back as it was written, and nothing else is taken for one."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asuka_infer.run_record import RECORD_SUFFIX, SCHEMA_VERSION, RecordError, RunRecord, record_path

RECORD = RunRecord(
    method="telea",
    seed=7,
    settings={"radius": 5},
    framing={"context": 0.5, "boxes": [[0, 0, 64, 64]]},
    compositing="exact",
    image_sha256="0" * 64,
    hole_sha256="1" * 64,
    result_sha256="abcdef0123456789" * 4,
    width=640,
    height=480,
    weights={},
    versions={"opencv": "5.0.0"},
    seconds=0.25,
    created_at="2026-11-20T12:00:00+00:00",
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
texts = st.dictionaries(st.text(), st.text(), max_size=3)
records = st.builds(
    RunRecord,
    method=st.text(),
    seed=st.integers(0, 2**63),
    settings=objects,
    framing=objects,
    compositing=st.sampled_from(["exact", "seamless"]),
    image_sha256=digests,
    hole_sha256=digests,
    result_sha256=digests,
    width=st.integers(1, 10**6),
    height=st.integers(1, 10**6),
    weights=texts,
    versions=texts,
    seconds=st.floats(0, 1e9),
    created_at=st.datetimes(timezones=st.timezones()).map(lambda time: time.replace(microsecond=0).isoformat()),
)


@settings(max_examples=40, deadline=None)
@given(records)
def test_a_record_comes_back_from_its_text_as_it_was(record: RunRecord) -> None:
    assert RunRecord.from_json(record.to_json()) == record


def test_the_text_is_plain_json_that_says_the_image_is_generated() -> None:
    values = json.loads(RECORD.to_json())
    assert values["generated"] is True
    assert values["schema_version"] == SCHEMA_VERSION
    assert values["framing"]["boxes"] == [[0, 0, 64, 64]]
    assert list(values) == sorted(values)


def test_equal_records_have_equal_text_whatever_the_order_of_their_settings() -> None:
    one, two = replace(RECORD, settings={"a": 1, "b": 2}), replace(RECORD, settings={"b": 2, "a": 1})
    assert one.to_json() == two.to_json()


def test_a_record_cannot_be_changed_not_even_through_what_it_was_made_of() -> None:
    settings = {"radius": 5}
    record = replace(RECORD, settings=settings)
    settings["radius"] = 6
    assert record.settings == {"radius": 5}
    boxes = [[0, 0, 8, 8]]
    record = replace(RECORD, framing={"boxes": boxes})
    boxes[0][3] = 9
    assert record.framing == {"boxes": [[0, 0, 8, 8]]}
    with pytest.raises(FrozenInstanceError):
        record.seed = 8  # pyright: ignore[reportAttributeAccessIssue] - the point of the test


def changed(**values: object) -> str:
    return json.dumps({**json.loads(RECORD.to_json()), **values})


def without(key: str) -> str:
    values = json.loads(RECORD.to_json())
    del values[key]
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[1]", "JSON list, not an object"),
        (changed(schema_version=2), "schema version 2, but this version reads 1"),
        (without("schema_version"), "schema version None"),
        (changed(prompt="a dog", strength=1), r"unknown keys \['prompt', 'strength'\]"),
        (without("seed"), r"lacks \['seed'\]"),
        (changed(generated=False), "generated is False, but true"),
        (changed(seed="7"), "seed is '7', but a whole number"),
        (changed(seed=True), "seed is True"),
        (changed(seed=-1), "seed is -1, but 0 or more"),
        (changed(width=0), "width is 0, but 1 or more"),
        (changed(seconds="fast"), "seconds is 'fast', but a number"),
        (changed(seconds=-1), "seconds is -1"),
        (changed(settings=[]), "settings is .*, but an object"),
        (changed(method=None), "method is None, but text"),
        (changed(result_sha256="abc"), "result_sha256 is 'abc', but 64"),
        (changed(image_sha256="G" * 64), "image_sha256"),
        (changed(compositing="blurred"), "'blurred'; it must be 'exact' or 'seamless'"),
        (changed(created_at="yesterday"), "created_at is 'yesterday'"),
        (changed(created_at="2026-11-20T12:00:00"), "UTC offset"),
        (changed(weights={"a.safetensors": 3}), "every value must be text"),
        (RECORD.to_json().replace("0.25", "NaN"), "seconds is nan"),
        (RECORD.to_json().replace("0.25", "1e999"), "seconds is inf"),
    ],
)
def test_what_is_no_record_of_this_schema_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(RecordError, match=words) as caught:
        RunRecord.from_json(text)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("value", [float("nan"), {1: "a"}, {1, 2}, object()])
def test_settings_that_json_would_change_are_refused_when_written(value: object) -> None:
    with pytest.raises(RecordError, match="settings"):
        replace(RECORD, settings={"x": value})


def test_tuples_of_a_frozen_setting_become_the_lists_that_json_has() -> None:
    record = replace(RECORD, settings={"sizes": ((1, 2), (3,))})
    assert record.settings == {"sizes": [[1, 2], [3]]}
    assert RunRecord.from_json(record.to_json()) == record


def test_the_record_lies_beside_its_image() -> None:
    assert record_path(Path("out/telea/photo.1.png")) == Path("out/telea/photo.1.json")
    assert RECORD_SUFFIX == ".json"


def test_reading_records_needs_the_standard_library_only() -> None:
    file = Path(__file__).parents[2] / "asuka_infer" / "run_record.py"
    script = f"import runpy, sys; runpy.run_path({str(file)!r}); print('numpy' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
