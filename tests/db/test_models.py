"""What the tables and their triggers refuse, on both databases."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.engine import Database
from db.models import (
    AnalysisVote,
    Audit,
    Cell,
    Exclusion,
    ExclusionEffect,
    Outcome,
    Response,
    SessionState,
    StudySession,
    StudyVersion,
    Trial,
    TrialKind,
    VersionStatus,
    Withdrawal,
    WithdrawalScope,
)
from db.queries import erase_session
from tests.db.small_study import SmallStudy, add_session, add_small_study, add_visit, digest


def response(study: SmallStudy, **changes: Any) -> Response:
    values: dict[str, Any] = {
        "trial_id": study.trial,
        "criterion": "stability",
        "idempotency_key": "k2",
        "outcome": Outcome.CHOICE,
        "position": 1,
        "answered_at": 6,
    }
    return Response(**(values | changes))


def exclusion(**changes: Any) -> Exclusion:
    values: dict[str, Any] = {
        "rule_key": "gold",
        "rule_sha256": digest(),
        "effect": ExclusionEffect.USE,
        "evidence_json": "{}",
        "actor": "rule",
        "at": 7,
    }
    return Exclusion(**(values | changes))


def store(database: Database, *rows: Any) -> None:
    def job(session: Session) -> None:
        session.add_all(rows)
        session.flush()

    database.write(job)


def refuses(database: Database, job: Callable[[Session], Any], because: str) -> None:
    with pytest.raises(DBAPIError, match=because):
        database.write(job)


def refuses_rows(database: Database, *rows: Any, because: str = "(?i)unique|check") -> None:
    with pytest.raises(DBAPIError, match=because):
        store(database, *rows)


def count(database: Database, table: type[Any]) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_trial_takes_one_response_per_criterion(database: Database) -> None:
    study = database.write(add_small_study)
    refuses_rows(database, response(study, criterion="consistency"))
    store(database, response(study))
    assert count(database, Response) == 2


def test_an_idempotency_key_stores_a_criterion_once(database: Database) -> None:
    study = database.write(lambda session: add_small_study(session, key="k1"))
    database.write(lambda session: add_small_study(session, key="k9"))
    refuses_rows(database, response(study, idempotency_key="k9", criterion="consistency"))


@pytest.mark.parametrize(
    ("outcome", "position"), [(Outcome.CHOICE, None), (Outcome.TIE, 0), (Outcome.CANT_TELL, 1), (Outcome.CHOICE, -1)]
)
def test_a_position_is_given_exactly_when_something_was_chosen(
    database: Database, outcome: Outcome, position: int | None
) -> None:
    study = database.write(add_small_study)
    refuses_rows(database, response(study, outcome=outcome, position=position))


def test_a_response_is_never_edited(database: Database) -> None:
    database.write(add_small_study)
    refuses(database, lambda session: session.execute(update(Response).values(position=1)), "never edited")


def test_a_response_is_not_deleted_without_a_withdrawal(database: Database) -> None:
    database.write(add_small_study)
    refuses(database, lambda session: session.execute(delete(Response)), "only by the withdrawal")


def test_a_withdrawal_of_somebody_else_deletes_nothing(database: Database) -> None:
    study = database.write(add_small_study)

    def job(session: Session) -> None:
        _, other = add_visit(session, study.version)
        session.add(Withdrawal(session_id=other, scope=WithdrawalScope.ERASE, at=9, erasing=-1))
        session.flush()
        session.execute(delete(Response))

    refuses(database, job, "only by the withdrawal")


def test_a_withdrawal_that_is_done_deletes_nothing_any_more(database: Database) -> None:
    study = database.write(add_small_study)
    store(database, Withdrawal(session_id=study.session, scope=WithdrawalScope.ERASE, at=9))
    refuses(database, lambda session: session.execute(delete(Response)), "only by the withdrawal")


def test_an_erasure_cannot_be_committed_while_it_is_open(database: Database) -> None:
    study = database.write(add_small_study)
    refuses_rows(
        database,
        Withdrawal(session_id=study.session, scope=WithdrawalScope.ERASE, at=9, erasing=-1),
        because="(?i)foreign key",
    )
    assert count(database, Withdrawal) == 0


def test_erasing_a_session_leaves_nothing_but_the_withdrawal(database: Database) -> None:
    study = database.write(add_small_study)
    database.write(lambda session: add_small_study(session, key="somebody else"))
    first = exclusion(response_id=study.response)
    store(database, first)
    store(database, exclusion(response_id=study.response, reverses_id=first.id), exclusion(session_id=study.session))

    erased = database.write(lambda session: erase_session(session, study.session, at=10))

    assert (erased.trials, erased.responses, erased.exclusions) == (1, 1, 3)
    assert (count(database, Response), count(database, AnalysisVote), count(database, Exclusion)) == (1, 1, 0)
    assert (count(database, Trial), count(database, Withdrawal)) == (1, 1)
    refuses(database, lambda session: session.execute(delete(Response)), "only by the withdrawal")


def test_replacing_a_row_does_not_slip_past_the_deletion_rule(sqlite_database: Database) -> None:
    study = sqlite_database.write(add_small_study)
    statement = text(
        "INSERT OR REPLACE INTO response (trial_id, criterion, idempotency_key, outcome, answered_at)"
        " VALUES (:trial, 'consistency', 'k3', 'tie', 7)"
    )
    refuses(sqlite_database, lambda session: session.execute(statement, {"trial": study.trial}), "only by the")


@pytest.mark.postgres
def test_emptying_a_whole_table_is_refused_too(postgres_database: Database) -> None:
    postgres_database.write(add_small_study)
    refuses(postgres_database, lambda session: session.execute(text("TRUNCATE response CASCADE")), "never emptied")


@pytest.mark.parametrize("column", ["spec_json", "spec_sha256", "design_seed"])
def test_a_launched_definition_never_changes(database: Database, column: str) -> None:
    database.write(add_small_study)
    refuses(
        database,
        lambda session: session.execute(update(StudyVersion).values({column: digest()})),
        "cannot change",
    )


def test_a_draft_may_change(database: Database) -> None:
    study = database.write(add_small_study)

    def job(session: Session) -> None:
        launched = session.get_one(StudyVersion, study.version)
        draft = StudyVersion(
            study_id=launched.study_id, version=2, spec_json="{}", spec_sha256=digest(), design_seed=digest(),
            created_at=1,
        )  # fmt: skip
        session.add(draft)
        session.flush()
        draft.spec_json = '{"more": 1}'
        session.flush()

    database.write(job)
    with database.read() as session:
        assert session.scalars(select(StudyVersion.spec_json).order_by(StudyVersion.version)).all() == [
            "{}",
            '{"more": 1}',
        ]


def test_a_launched_version_neither_becomes_a_draft_nor_goes_away(database: Database) -> None:
    database.write(add_small_study)
    again = update(StudyVersion).values(status=VersionStatus.DRAFT)
    refuses(database, lambda session: session.execute(again), "become a draft")
    refuses(database, lambda session: session.execute(delete(StudyVersion)), "cannot be deleted")
    database.write(lambda session: session.execute(update(StudyVersion).values(status=VersionStatus.CLOSED)))


def test_a_person_has_one_live_session_and_may_come_back_after_it(database: Database) -> None:
    study = database.write(add_small_study)
    refuses(database, lambda session: add_session(session, study.version, study.participant), "(?i)unique")
    database.write(lambda session: session.execute(update(StudySession).values(state=SessionState.COMPLETED)))
    database.write(lambda session: add_session(session, study.version, study.participant))


def test_a_person_sees_an_image_once_as_a_real_trial(database: Database) -> None:
    study = database.write(add_small_study)

    def trial(**changes: Any) -> Trial:
        values: dict[str, Any] = {
            "public_id": digest(), "version_id": study.version, "session_id": study.session, "seq": 1,
            "kind": TrialKind.REAL, "image_id": study.image, "cell_id": study.cell, "assign_algo": "jit-1",
            "issued_at": 8,
        }  # fmt: skip
        return Trial(**(values | changes))

    refuses_rows(database, trial())
    refuses_rows(database, trial(kind=TrialKind.REPEAT))  # a repeat must say of what
    store(database, trial(kind=TrialKind.REPEAT, repeat_of_id=study.trial))
    refuses_rows(database, trial(kind=TrialKind.GOLD, seq=1))  # the place in the order is taken


def test_the_same_pair_and_side_is_one_cell_and_so_is_one_rotation(database: Database) -> None:
    study = database.write(add_small_study)
    lo, hi = study.methods

    def cell(**changes: Any) -> Cell:
        return Cell(version_id=study.version, image_id=study.image, target=12, **changes)

    refuses_rows(database, cell(method_lo_id=lo, method_hi_id=hi, side=0))
    refuses_rows(database, cell(method_lo_id=hi, method_hi_id=lo, side=1))  # lower id first, or a pair has two names
    refuses_rows(database, cell(method_lo_id=lo, method_hi_id=hi, side=2))
    refuses_rows(database, cell(method_lo_id=lo, method_hi_id=hi))
    refuses_rows(database, cell(rotation=0, side=0))
    store(database, cell(method_lo_id=lo, method_hi_id=hi, side=1), cell(rotation=0), cell(rotation=1))
    refuses_rows(database, cell(rotation=1))


@pytest.mark.parametrize("counter", ["n_valid", "n_live", "n_partial"])
def test_a_counter_never_goes_below_zero(database: Database, counter: str) -> None:
    database.write(add_small_study)
    lower = text(f"UPDATE cell SET {counter} = {counter} - 1")  # noqa: S608 - three names of our own
    refuses(database, lambda session: session.execute(lower), f"(?i)check.*{counter}|{counter}.*check")


def test_the_answers_of_a_test_session_never_enter_the_analysis(database: Database) -> None:
    study = database.write(add_small_study)

    def job(session: Session) -> None:
        person, visit = add_visit(session, study.version, is_test=True)
        again = response(study)
        session.add(again)
        session.flush()
        vote = AnalysisVote(
            response_id=again.id, version_id=study.version, criterion=0, kind=0, image_id=study.image,
            session_id=visit, participant_id=person, trial_id=study.trial, outcome=1, answered_at=6,
        )  # fmt: skip
        session.add(vote)
        session.flush()

    refuses(database, job, "never enter the analysis")


def test_an_exclusion_is_reversed_once_and_never_edited(database: Database) -> None:
    study = database.write(add_small_study)
    first = exclusion(session_id=study.session)
    store(database, first)
    store(database, exclusion(session_id=study.session, reverses_id=first.id))
    refuses_rows(database, exclusion(session_id=study.session, reverses_id=first.id))
    refuses_rows(database, exclusion())  # of nothing
    refuses(database, lambda session: session.execute(update(Exclusion).values(actor="x")), "never edited")
    refuses(database, lambda session: session.execute(delete(Exclusion)), "only by the withdrawal")


def test_the_audit_chain_cannot_fork_shrink_or_change(database: Database) -> None:
    def row(prev: str) -> Audit:
        return Audit(
            at=1, actor="owner", action="launch", object="v1", payload_sha256=digest(), prev_hash=prev, hash=digest()
        )

    root = digest()
    store(database, row(root))
    refuses_rows(database, row(root))
    refuses(database, lambda session: session.execute(update(Audit).values(actor="nobody")), "never edited")
    refuses(database, lambda session: session.execute(delete(Audit)), "never deleted")


def test_an_unknown_state_is_not_stored(database: Database) -> None:
    database.write(add_small_study)
    refuses(database, lambda session: session.execute(text("UPDATE session SET state = 'asleep'")), "(?i)check")


def test_the_row_id_of_an_erased_answer_is_never_given_out_again(sqlite_database: Database) -> None:
    study = sqlite_database.write(add_small_study)
    sqlite_database.write(lambda session: erase_session(session, study.session, at=10))
    later = sqlite_database.write(lambda session: add_small_study(session, key="k5"))
    assert later.response > study.response
    assert later.trial > study.trial


def test_reading_a_study_for_analysis_touches_the_covering_index_alone(sqlite_database: Database) -> None:
    sqlite_database.write(add_small_study)
    with sqlite_database.read() as session:
        votes = select(AnalysisVote.__table__).where(AnalysisVote.version_id == 1, AnalysisVote.kind == 0)
        plan = session.execute(text(f"EXPLAIN QUERY PLAN {votes.compile(compile_kwargs={'literal_binds': True})}"))
        assert "USING COVERING INDEX ix_analysis_vote_covering" in str(plan.all())
