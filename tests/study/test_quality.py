"""The rules by which sessions are paid and analysed, exclusions that can be undone, and the counts that follow."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import binomtest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DBAPIError

from db import models
from db.engine import Database
from db.models import ExclusionEffect, Outcome, SessionState, TrialKind
from study import audit, counters, quality
from study.definition import RULES, DefinitionError, Exclusion
from study.publication import close
from study.quality import Answer, Record, judge, side_bias_p
from study.service import RefusedError
from tests.study.stage import START, Folders, Participant, Stage, definition, open_stage

STUDY = definition(screen={"min_css_width": 1000, "min_css_height": 600})
FAST_RULE: dict[str, Any] = {"rule": "speed", "effect": "use"}


def answer(trial: int, **changes: Any) -> Answer:
    plain = Answer(
        trial=trial,
        kind=TrialKind.REAL,
        repeat_of=None,
        criterion="context_stability",
        outcome=Outcome.CHOICE,
        position=trial % 2,
        method=1,
        rt_ms=4000,
        server_ms=4100,
        hidden_ms=0,
        correct=None,
    )
    return replace(plain, **changes)


def record(answers: Sequence[Answer] = (), **changes: Any) -> Record:
    return replace(Record(SessionState.COMPLETED, tuple(answers), (1200, 800), False, ()), **changes)  # noqa: FBT003


def broken(rule: str, looked_at: Record, **params: float) -> bool:
    return judge(looked_at, Exclusion.model_validate({"rule": rule, "params": params}), STUDY).broken


HONEST = [answer(trial) for trial in range(40)]


@pytest.mark.parametrize("rule", RULES)
def test_an_honest_session_and_one_without_evidence_break_no_rule(rule: str) -> None:
    assert not broken(rule, record(HONEST))
    if rule != "incomplete":
        assert not broken(rule, record(css_size=None))


def golds(right: int, of: int) -> list[Answer]:
    return [answer(number, kind=TrialKind.GOLD, correct=number < right) for number in range(of)]


def test_seven_of_eight_golds_pass_and_six_do_not() -> None:
    assert not broken("gold", record(golds(7, 8)))
    assert broken("gold", record(golds(6, 8)))
    assert not broken("gold", record(golds(6, 8)), least_share=0.75)


def test_the_question_that_a_gold_does_not_test_is_not_scored() -> None:
    untested = [answer(9, kind=TrialKind.GOLD, criterion="visual_consistency", correct=None)]
    assert not broken("gold", record(golds(8, 8) + untested))


def test_one_failed_attention_check_is_forgiven_and_two_are_not() -> None:
    checks = [answer(number, kind=TrialKind.ATTENTION, correct=False) for number in range(2)]
    assert not broken("attention", record(checks[:1]))
    assert broken("attention", record(checks))


def test_an_attention_check_counts_once_whatever_its_questions_and_is_failed_by_one_of_them() -> None:
    def check(trial: int, *, right: bool) -> list[Answer]:
        stable = answer(trial, kind=TrialKind.ATTENTION, correct=right)
        return [stable, replace(stable, criterion="visual_consistency", correct=True)]

    wrong_once = [*check(1, right=False), *check(2, right=True)]
    assert not broken("attention", record(wrong_once))
    assert broken("attention", record(wrong_once), most_failed=0)
    assert broken("attention", record([*check(1, right=False), *check(2, right=False)]))


def test_a_clicker_is_too_fast_by_share_or_by_median() -> None:
    quick = [answer(trial, rt_ms=500) for trial in range(8)]
    assert not broken("speed", record(quick + HONEST[8:]))
    assert broken("speed", record([*quick, answer(8, rt_ms=500), *HONEST[9:]]))
    assert broken("speed", record([answer(trial, rt_ms=1400) for trial in range(40)]))


def test_a_page_that_claims_long_looks_is_judged_by_the_servers_clock() -> None:
    assert broken("speed", record([answer(trial, rt_ms=9000, server_ms=300) for trial in range(40)]))


@pytest.mark.parametrize(("most", "n"), [(20, 20), (15, 16), (8, 10), (5, 10), (1, 1)])
def test_side_bias_is_the_exact_two_sided_binomial_test(most: int, n: int) -> None:
    chosen = [0] * most + [1] * (n - most)
    assert side_bias_p(chosen, 2) == pytest.approx(binomtest(most, n).pvalue)


def test_side_bias_among_nine_is_the_tail_of_the_most_chosen_times_nine() -> None:
    chosen = [4] * 12 + [0, 1, 2, 3, 5, 6, 7, 8]
    assert side_bias_p(chosen, 9) == pytest.approx(9 * binomtest(12, 20, 1 / 9, alternative="greater").pvalue)


def test_always_left_is_a_bias_and_thirty_of_forty_is_not() -> None:
    assert broken("side_bias", record([answer(trial, position=0) for trial in range(40)]))
    assert not broken("side_bias", record([answer(trial, position=int(trial >= 30)) for trial in range(40)]))


def test_a_page_hidden_for_a_third_of_the_time_is_not_looked_at() -> None:
    assert broken("hidden", record([answer(trial, hidden_ms=1300) for trial in range(9)]))
    assert not broken("hidden", record([answer(trial, hidden_ms=1100) for trial in range(9)]))


def test_hidden_time_of_two_questions_of_one_trial_counts_once() -> None:
    both = [answer(0, hidden_ms=1000, criterion=key) for key in ("context_stability", "visual_consistency")]
    assert not broken("hidden", record(both))


def test_who_came_before_and_who_looks_through_a_small_window_is_found() -> None:
    assert broken("duplicate_person", record(HONEST, took_part_before=True))
    assert broken("small_screen", record(HONEST, css_size=(999, 800)))
    assert broken("small_screen", record(HONEST, css_size=(1000, 599)))


def test_a_repetition_agrees_when_the_same_method_is_chosen_on_whichever_side() -> None:
    again = [answer(100 + n, kind=TrialKind.REPEAT, repeat_of=n, position=1 - n % 2, method=1) for n in range(4)]
    assert not broken("repeats", record(HONEST + again))
    other = [replace(each, method=2) for each in again[:2]]
    assert broken("repeats", record(HONEST + other + again[2:]))
    tie = [replace(again[0], outcome=Outcome.TIE, method=None, position=None)]
    assert broken("repeats", record(HONEST + tie), least_share=1)


def test_nothing_but_ties_and_a_failed_defence_are_marked() -> None:
    ties = [answer(trial, outcome=Outcome.TIE, position=None, method=None) for trial in range(9)]
    assert broken("ties", record([*ties, answer(9)]))
    assert broken("signal", record(HONEST, failed_signals=("proof_of_work",)))


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"rule": "gold", "effect": "accept"}, "may not cost a participant their pay"),
        ({"rule": "signal", "effect": "use"}, "may only flag"),
        ({"rule": "repeats", "effect": "use"}, "may only flag"),
        ({"rule": "speed", "params": {"fast": 1}}, "no parameter 'fast'; it has fast_ms"),
        ({"rule": "agrees_with_us"}, "incomplete"),
    ],
)
def test_an_unfair_or_misspelt_rule_is_refused(rule: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        definition(exclusions=[rule])


# ------------------------------------------------------------------------------------------------- in a database


@pytest.fixture
def judged(database: Database, folders: Folders) -> Any:
    rules = [FAST_RULE, {"rule": "incomplete", "effect": "accept"}, {"rule": "ties", "effect": "flag"}]
    with open_stage(database, folders, definition(exclusions=rules)) as stage:
        yield stage


def answer_all(participant: Participant, rt_ms: int) -> None:
    reply = participant.get("/trial")
    while reply["state"] == "running":
        reply = participant.answer(reply["trial"], rt_ms=rt_ms)


def used_votes(stage: Stage) -> list[int]:
    with stage.database.read() as db:
        return sorted(db.execute(select(models.AnalysisVote.used)).scalars())


def valid_answers(stage: Stage) -> int:
    with stage.database.read() as db:
        counters.verify(db, stage.ingested.version_id)
        return sum(db.execute(select(models.Cell.n_valid)).scalars())


def apply_rules(stage: Stage) -> int:
    return stage.database.write(lambda db: quality.apply_rules(db, stage.ingested.version_id, at=START))


def public_ids(stage: Stage) -> list[str]:
    with stage.database.read() as db:
        return list(db.execute(select(models.StudySession.public_id).order_by(models.StudySession.id)).scalars())


def exclude(stage: Stage, session: str, effect: ExclusionEffect = ExclusionEffect.USE, reason: str = "a friend") -> int:
    version = stage.ingested.version_id
    return stage.database.write(
        lambda db: quality.exclude(db, version, session, effect=effect, reason=reason, actor="owner", at=START)
    )


def reverse(stage: Stage, exclusion: int) -> int:
    version = stage.ingested.version_id
    return stage.database.write(
        lambda db: quality.reverse(db, version, exclusion, reason="was me", actor="owner", at=START)
    )


def verdicts(stage: Stage) -> list[quality.Verdict]:
    with stage.database.read() as db:
        return quality.verdicts(db, stage.ingested.version_id)


def test_a_session_that_breaks_a_rule_leaves_the_analysis_and_its_cells_are_asked_again(judged: Stage) -> None:
    answer_all(judged.participant().start(), rt_ms=200)
    answer_all(judged.participant().start(), rt_ms=4000)
    apply_rules(judged)
    assert used_votes(judged) == [0] * 12 + [1] * 12
    assert valid_answers(judged) == 6
    fast, honest = verdicts(judged)
    assert (fast.accept, fast.use, honest.accept, honest.use) == (True, False, True, True)
    assert [finding.rule for finding in fast.findings if finding.broken] == ["speed"]
    assert fast.in_force[0].actor == "rules"
    assert apply_rules(judged) == 0


def test_the_last_answer_itself_brings_the_rules_to_bear(judged: Stage) -> None:
    answer_all(judged.participant().start(), rt_ms=200)
    assert [verdict.use for verdict in verdicts(judged)] == [False]
    assert valid_answers(judged) == 0


def test_a_reversed_exclusion_counts_again_and_its_rule_does_not_come_back(judged: Stage) -> None:
    answer_all(judged.participant().start(), rt_ms=200)
    apply_rules(judged)
    (verdict,) = verdicts(judged)
    reverse(judged, verdict.in_force[0].id)
    assert used_votes(judged) == [1] * 12
    assert valid_answers(judged) == 6
    assert apply_rules(judged) == 0
    assert verdicts(judged)[0].use
    with pytest.raises(RefusedError, match="no exclusion"):
        reverse(judged, verdict.in_force[0].id)


def test_one_of_two_exclusions_undone_leaves_the_session_out(judged: Stage) -> None:
    answer_all(judged.participant().start(), rt_ms=4000)
    first, second = (exclude(judged, public_ids(judged)[0]) for _ in range(2))
    reverse(judged, first)
    assert used_votes(judged) == [0] * 12
    assert valid_answers(judged) == 0
    reverse(judged, second)
    assert used_votes(judged) == [1] * 12
    assert valid_answers(judged) == 6


def test_not_paying_takes_nothing_from_the_analysis(judged: Stage) -> None:
    answer_all(judged.participant().start(), rt_ms=4000)
    exclude(judged, public_ids(judged)[0], ExclusionEffect.ACCEPT)
    (verdict,) = verdicts(judged)
    assert (verdict.accept, verdict.use) == (False, True)
    assert used_votes(judged) == [1] * 12


def test_an_incomplete_session_is_judged_once_the_study_is_closed(judged: Stage) -> None:
    participant = judged.participant().start()
    participant.answer(participant.get("/trial")["trial"], rt_ms=4000)
    assert apply_rules(judged) == 0
    close(judged.database, "trial-run", now=START)
    assert apply_rules(judged) == 0
    assert not verdicts(judged)[0].accept


def test_an_exclusion_needs_a_reason_and_a_session_and_is_in_the_audit_trail(judged: Stage) -> None:
    answer_all(judged.participant().start(), rt_ms=4000)
    session = public_ids(judged)[0]
    with pytest.raises(RefusedError, match="reason"):
        exclude(judged, session, reason="  ")
    with pytest.raises(RefusedError, match="no session 'nobody'"):
        exclude(judged, "nobody")
    reverse(judged, exclude(judged, session))
    with judged.database.read() as db:
        assert [entry.action for entry in audit.entries(db, limit=2)] == ["reverse", "exclude"]
        audit.verify_chain(db)


def test_an_exclusion_is_neither_edited_nor_deleted(judged: Stage) -> None:
    answer_all(judged.participant().start(), rt_ms=4000)
    exclude(judged, public_ids(judged)[0])
    for statement in (update(models.Exclusion).values(actor="me"), delete(models.Exclusion)):
        with pytest.raises(DBAPIError, match="an exclusion is"):
            judged.database.write(lambda db, statement=statement: db.execute(statement) and None)


def test_erasing_an_excluded_session_keeps_every_count_true(judged: Stage) -> None:
    participant = judged.participant().start()
    answer_all(participant, rt_ms=200)
    apply_rules(judged)
    participant.post("/sessions/me/withdraw", {"erase": True})
    assert valid_answers(judged) == 0
    assert verdicts(judged) == []


def test_the_flow_adds_up(judged: Stage) -> None:
    answer_all(judged.participant().start(), rt_ms=200)
    answer_all(judged.participant().start(), rt_ms=4000)
    gone = judged.participant().start()
    gone.answer(gone.get("/trial")["trial"])
    gone.post("/sessions/me/withdraw", {"erase": True})
    left = judged.participant().start()
    left.answer(left.get("/trial")["trial"])
    judged.participant().join()
    declined = judged.participant()
    declined.join()
    declined.post("/sessions/me/consent", {"accepted": False})
    apply_rules(judged)
    with judged.database.read() as db:
        flow = quality.flow(db, judged.ingested.version_id)
    assert flow.arrived == 6
    assert flow.erased == 1
    assert flow.by_state == {"completed": 2, "created": 1, "declined": 1, "running": 1}
    assert (flow.consented, flow.answered, flow.completed) == (3, 3, 2)
    assert (flow.accepted, flow.used) == (2, 1)
    assert flow.excluded == {"speed (use)": 1}


def test_a_person_who_comes_back_in_the_next_version_is_a_duplicate(database: Database, folders: Folders) -> None:
    rules = [{"rule": "duplicate_person", "effect": "use"}]
    for real, fresh in ((6, True), (5, False)):
        study = definition(exclusions=rules, recruit={"source": "lab"}, plan={"real": real})
        with open_stage(database, folders, study, seed=real, replace=True) as stage:
            stage.participant().start(link={"participant": "P07"}).answer_all()
            apply_rules(stage)
            assert [verdict.use for verdict in verdicts(stage)] == [fresh]
