"""Gold pictures differ from the right answer in the hole alone, and in sessions they are asked, scored, never told."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.color import deltaE_cie76, rgb2lab
from sqlalchemy import select

from db import models
from db.engine import Database
from db.models import KindCode, RenditionKind, SessionState, TrialKind, TrialState
from study import counters
from study.design import load_design
from study.golds import SHIFT, WAYS, cleanest, colour_shifts, foreign_objects
from study.ingest import IngestError
from study.preview import preview_page
from tests.study.stage import Folders, Participant, Stage, definition, ingest_and_launch, open_stage

CRITERIA = [
    {"key": "stable", "title": "C.S.", "question": "More stable?", "allow": ["tie"], "gold": "foreign_object"},
    {"key": "consistent", "title": "V.C.", "question": "More consistent?", "allow": ["tie"], "gold": "colour_shift"},
]
PLAN = {
    "practice": 2,
    "real": 8,
    "gold": {"per_criterion": 2, "first_after": 2, "min_gap": 2},
    "attention": 1,
    "repeats": 2,
    "repeat_gap": 4,
}


def photograph() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:120, 150:300])


def ragged_hole(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Some rectangles, anywhere."""
    generator = np.random.default_rng(seed)
    hole = np.zeros(shape, dtype=np.bool_)
    for _ in range(3):
        top, left = generator.integers(0, shape[0] - 30), generator.integers(0, shape[1] - 30)
        hole[top : top + generator.integers(3, 40), left : left + generator.integers(3, 40)] = True
    return hole


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The CIE 1976 colour difference of every pixel, by another library than the one under test."""
    return deltaE_cie76(rgb2lab(one), rgb2lab(other))


@given(seed=st.integers(0, 999))
@settings(max_examples=8, deadline=None)
def test_shifted_colours_differ_by_twelve_in_the_hole_and_by_nothing_outside(seed: int) -> None:
    fill, hole = photograph(), ragged_hole((120, 150), seed)
    for wrong in colour_shifts(fill, hole, 3, seed=str(seed)):
        assert np.array_equal(wrong[~hole], fill[~hole])
        assert difference(fill, wrong)[hole].mean() == pytest.approx(SHIFT, abs=1)


@pytest.mark.parametrize("level", [0, 40, 128, 200, 255])
def test_even_plain_black_and_plain_white_are_shifted_visibly(level: int) -> None:
    fill = np.full((40, 50, 3), level, dtype=np.uint8)
    hole = np.zeros((40, 50), dtype=np.bool_)
    hole[10:30, 15:40] = True
    for wrong in colour_shifts(fill, hole, 2, seed="s"):
        assert difference(fill, wrong)[hole].mean() >= 8


def test_a_shift_never_repairs_a_fill_that_was_off_already() -> None:
    """A hole 12 too green beside grey: every chosen shift leads further away from the grey, none back to it."""
    grey = np.full((60, 60, 3), 128, dtype=np.uint8)
    hole = np.zeros((60, 60), dtype=np.bool_)
    hole[20:40, 20:40] = True
    off = colour_shifts(grey, hole, 1, seed="a")[0]
    for wrong in colour_shifts(off, hole, 5, seed="b"):
        assert difference(grey, wrong)[hole].mean() > difference(grey, off)[hole].mean() + 3


def test_the_right_answer_is_the_fill_whose_border_shows_least() -> None:
    fill, hole = photograph(), ragged_hole((120, 150), 4)
    shifted = colour_shifts(fill, hole, 2, seed="x")
    assert cleanest({"a": shifted[0], "b": fill, "c": shifted[1]}, hole) == "b"


@given(seed=st.integers(0, 999), width=st.integers(20, 200))
@settings(max_examples=8, deadline=None)
def test_a_foreign_object_lies_in_the_hole_alone_and_comes_from_another_photograph(seed: int, width: int) -> None:
    fill, hole = photograph(), ragged_hole((120, 150), seed)
    other = np.ascontiguousarray(data.chelsea()[:180, :width])
    wrong = foreign_objects(fill, hole, [other], 3, seed=str(seed))
    assert len({picture.tobytes() for picture in wrong}) == 3
    for picture in wrong:
        changed = (picture != fill).any(axis=2)
        assert not changed[~hole].any()
        assert changed.sum() >= 0.09 * hole.sum()
        assert difference(fill, picture)[changed].mean() > SHIFT


def test_a_pasted_piece_is_found_in_the_photograph_it_came_from() -> None:
    fill = np.full((60, 60, 3), 90, dtype=np.uint8)
    hole = np.zeros((60, 60), dtype=np.bool_)
    hole[20:40, 20:44] = True
    other = np.random.default_rng(3).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    (wrong,) = foreign_objects(fill, hole, [other], 1, seed="s")
    changed = (wrong != fill).any(axis=2)
    row = int(np.argwhere(changed)[:, 0].mean())
    column = int(np.flatnonzero(changed[row])[2])
    run = wrong[row, column : column + 4]
    either_way = (run.tolist(), run[::-1].tolist())  # pieces may be mirrored
    found = [other[top, left : left + 4].tolist() in either_way for top in range(70) for left in range(77)]
    assert sum(found) == 1


def test_the_same_seed_gives_the_same_pictures_and_another_one_others() -> None:
    fill, hole = photograph(), ragged_hole((120, 150), 1)
    assert np.array_equal(colour_shifts(fill, hole, 1, seed="1"), colour_shifts(fill, hole, 1, seed="1"))
    assert not np.array_equal(colour_shifts(fill, hole, 1, seed="1"), colour_shifts(fill, hole, 1, seed="2"))
    pieces = [foreign_objects(fill, hole, [data.chelsea()], 1, seed=seed)[0] for seed in ("1", "1", "2")]
    assert np.array_equal(pieces[0], pieces[1])
    assert not np.array_equal(pieces[0], pieces[2])


def test_there_are_enough_directions_for_the_largest_trial() -> None:
    fill, hole = photograph(), ragged_hole((120, 150), 2)
    wrong = colour_shifts(fill, hole, WAYS, seed="s")
    assert len({picture.tobytes() for picture in wrong}) == WAYS


# ------------------------------------------------------------------------------------------------- in a session


@pytest.fixture(params=["pairwise", "best_of_n"])
def tested(request: pytest.FixtureRequest, database: Database, folders: Folders) -> Iterator[Stage]:
    """A study with practice, golds, an attention trial and repeats."""
    study = definition(criteria=CRITERIA, plan=PLAN, protocol=request.param)
    with open_stage(database, folders, study) as opened:
        yield opened


def right_position(stage: Stage, trial: dict[str, Any]) -> int | None:
    """Where the right answer of a trial stands, as the database knows and the participant does not."""
    with stage.database.read() as db:
        return db.execute(select(models.Trial.gold_position).where(models.Trial.public_id == trial["id"])).scalar_one()


def walk(stage: Stage, participant: Participant, *, right: bool) -> list[dict[str, Any]]:
    """Every reply of a whole session; what has a right answer is answered rightly, or wrongly."""
    replies = [participant.get("/trial")]
    while trial := replies[-1]["trial"]:
        known = right_position(stage, trial)
        last = len(trial["candidates"]) - 1
        position = 0 if known is None else known if right else last - known if known != last - known else known - 1
        replies.append(participant.answer(trial, position=position))
    return replies


def trials_of(stage: Stage) -> list[Any]:
    with stage.database.read() as db:
        return list(db.execute(select(models.Trial).order_by(models.Trial.seq)).scalars())


@pytest.mark.parametrize("right", [True, False])
def test_a_session_is_practised_tested_and_repeated_as_planned_and_every_gold_is_scored(
    tested: Stage, *, right: bool
) -> None:
    participant = tested.participant()
    participant.join()
    assert participant.agree()["state"] == "practising"
    replies = walk(tested, participant, right=right)
    assert replies[-1]["state"] == "completed"
    assert replies[-1]["progress"] == {"answered": 8 + 4 + 1 + 2, "of": 15}
    trials = trials_of(tested)
    assert Counter(trial.kind for trial in trials) == {
        TrialKind.PRACTICE: 2, TrialKind.REAL: 8, TrialKind.GOLD: 4, TrialKind.ATTENTION: 1, TrialKind.REPEAT: 2,
    }  # fmt: skip
    with tested.database.read() as db:
        scored = db.execute(
            select(models.Response.gold_correct, models.Response.criterion, models.Trial.gold_criterion).join(
                models.Trial, models.Trial.id == models.Response.trial_id
            )
        ).all()
        votes = Counter(db.execute(select(models.AnalysisVote.kind)).scalars())
        counters.verify(db, tested.ingested.version_id)
        live = db.execute(select(models.Cell.n_valid)).scalars().all()
    # An attention trial tests every question, a gold trial one.
    assert all((row.gold_correct is None) == (row.gold_criterion not in {row.criterion, "*"}) for row in scored)
    assert sum(row.gold_criterion == "*" for row in scored) == 2
    assert {row.gold_correct for row in scored if row.gold_correct is not None} == {right}
    tests = {KindCode.GOLD: 8, KindCode.ATTENTION: 2, KindCode.PRACTICE: 2}
    assert votes == {KindCode.REAL: 16, KindCode.REPEAT: 4, **tests}
    assert sum(live) == 8  # golds, repeats and practice fill no cell


def test_practice_tells_what_was_right_and_why_and_nothing_else_ever_does(tested: Stage) -> None:
    participant = tested.participant()
    participant.join()
    participant.agree()
    replies = walk(tested, participant, right=False)
    told = [reply["practice"] for reply in replies]
    assert [each is not None for each in told] == [False, True, True] + [False] * 15
    assert [(each["correct"], each["flaw"]) for each in told[1:3]] == [
        (False, "foreign_object"),
        (False, "colour_shift"),
    ]
    practised = [trial for trial in trials_of(tested) if trial.kind == TrialKind.PRACTICE]
    assert [each["right"] for each in told[1:3]] == [trial.gold_position for trial in practised]
    shown = [reply["trial"] for reply in replies[:-1]]
    assert [trial["practice"] for trial in shown] == [True, True] + [False] * 15
    assert [trial["number"] for trial in shown] == [1, 2, *range(1, 16)]
    assert [trial["criteria"] for trial in shown[:2]] == [["stable"], ["consistent"]]
    assert {tuple(trial["criteria"]) for trial in shown[2:]} == {("stable", "consistent")}
    keys = {frozenset(trial) for trial in shown}
    assert len(keys) == 1  # a gold trial looks like every other


def test_a_practice_answer_sent_twice_gets_its_result_twice(tested: Stage) -> None:
    participant = tested.participant()
    participant.join()
    participant.agree()
    trial = participant.get("/trial")["trial"]
    replies = [participant.try_answer(trial, key="same").json() for _ in range(2)]
    assert replies[0] == replies[1]
    assert replies[0]["practice"]


def test_a_whole_tested_session_tells_no_kind_no_variant_and_no_answer(tested: Stage) -> None:
    """Everything a browser hears, byte by byte; only after a practice trial it hears what was right."""
    heard: list[tuple[str, bytes]] = []

    def listen(response: Any) -> None:
        response.read()
        heard.append((str(response.url), response.content))

    tested.client.event_hooks["response"] = [listen]
    participant = tested.participant().start_practice()
    reply = participant.get("/trial")
    lengths: list[set[int]] = []
    while trial := reply["trial"]:
        pictures = [participant.picture(each["token"]) for each in (trial["input"], *trial["candidates"])]
        lengths.append({len(picture.content) for picture in pictures})
        assert len({tuple(picture.headers.raw) for picture in pictures}) == 1
        reply = participant.answer(trial)
    assert {len(each) for each in lengths} == {1}
    with tested.database.read() as db:
        secrets = set(db.execute(select(models.Rendition.variant)).scalars()) - {""}
        secrets |= set(db.execute(select(models.Rendition.pixel_sha256)).scalars())
        secrets |= set(db.execute(select(models.Method.key)).scalars())
    secrets |= {'"gold', '"attention', '"repeat', '"real"', '"kind"', "gold_position", "repeat_of"}
    for address, content in heard:
        assert [secret for secret in secrets if secret.encode() in content] == [], address
        if address.endswith("/answer"):
            assert (b'"practice":null' in content) or (b'"correct":' in content)
    told = [content for address, content in heard if address.endswith("/answer") and b'"correct":' in content]
    assert len(told) == 2


def test_a_repeat_asks_the_same_with_the_candidates_in_reverse(tested: Stage) -> None:
    walk(tested, tested.participant().start_practice(), right=True)
    trials = {trial.id: trial for trial in trials_of(tested)}
    with tested.database.read() as db:
        slots = db.execute(
            select(models.TrialSlot.trial_id, models.TrialSlot.rendition_id)
            .where(models.TrialSlot.role == models.SlotRole.CANDIDATE)
            .order_by(models.TrialSlot.trial_id, models.TrialSlot.position)
        ).all()
    shown: dict[int, list[int]] = {}
    for slot in slots:
        shown.setdefault(slot.trial_id, []).append(slot.rendition_id)
    repeats = [trial for trial in trials.values() if trial.kind == TrialKind.REPEAT]
    assert len(repeats) == 2
    for repeat in repeats:
        original = trials[repeat.repeat_of_id]
        assert repeat.seq - original.seq >= 4
        assert shown[repeat.id] == shown[original.id][::-1]


def test_a_gold_trial_has_one_right_picture_and_the_others_differ_in_the_hole_alone(tested: Stage) -> None:
    with tested.database.read() as db:
        design = load_design(db, tested.ingested.version_id)
        pictures = {
            row.id: row
            for row in db.execute(select(models.Rendition).where(models.Rendition.kind == RenditionKind.GOLD)).scalars()
        }
        outputs = set(
            db.execute(
                select(models.Rendition.pixel_sha256).where(models.Rendition.kind == RenditionKind.OUTPUT)
            ).scalars()
        )
    assert len(design.golds) == 2 * 2 + 2 + 1
    assert len(pictures) == len(design.golds) * design.definition.candidates
    for (kind, _, _), gold in design.golds.items():
        assert (pictures[gold.right_id].pixel_sha256 in outputs) == (kind != "attention")
        assert not {pictures[id_].pixel_sha256 for id_ in gold.wrong_ids} & outputs
        assert len(gold.wrong_ids) == design.definition.candidates - 1


def test_the_preview_shows_the_trials_with_a_known_answer_and_names_no_method(tested: Stage) -> None:
    with tested.database.read() as db:
        page = preview_page(db, "trial-run")
        methods = db.execute(select(models.Method.key)).scalars().all()
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    kinds = Counter(title.split()[0] for title in titles if " trial " in title)
    assert kinds == {"Practice": 2, "Gold": 4, "Attention": 1}
    assert page.count("<figcaption>right") == 7
    assert [key for key in methods if key in page] == []


def test_who_was_away_during_the_practice_goes_on_practising(tested: Stage) -> None:
    participant, other = tested.participant().start_practice(), tested.participant().start_practice()
    first = participant.answer(participant.get("/trial")["trial"])
    tested.clock.pass_seconds(601)
    other.get("/trial")
    with tested.database.read() as db:
        states = Counter(db.execute(select(models.StudySession.state)).scalars())
        counters.verify(db, tested.ingested.version_id)
    assert states == {SessionState.ABANDONED: 1, SessionState.PRACTISING: 1}
    again = participant.get("/trial")
    assert again["state"] == "practising"
    assert again["trial"] == first["trial"]
    assert walk(tested, participant, right=True)[-1]["state"] == "completed"


def test_in_a_draining_study_nobody_is_tested_for_whom_nothing_real_is_left(
    database: Database, folders: Folders
) -> None:
    study = definition(criteria=CRITERIA, plan=PLAN, target={"per_cell": 2, "participants": 3})
    with open_stage(database, folders, study) as stage:
        ends: list[str] = []
        for _ in range(30):
            ends.append(walk(stage, stage.participant().start_practice(), right=True)[-1]["state"])
            if ends[-1] == "full":
                break
        assert ends[-1] == "full"
        last = [trial for trial in trials_of(stage) if trial.state != TrialState.ANSWERED]
        assert last == []
        with stage.database.read() as db:
            cells = db.execute(select(models.Cell.n_valid)).scalars().all()
            counters.verify(db, stage.ingested.version_id)
        assert min(cells) >= 1


def test_gold_trials_need_as_many_images_as_they_are(database: Database, folders: Folders) -> None:
    plan = PLAN | {"gold": {"per_criterion": 9, "first_after": 1, "min_gap": 1}}
    with pytest.raises(IngestError, match="9 gold trials per criterion need as many images"):
        ingest_and_launch(database, folders, definition(criteria=CRITERIA, plan=plan))
