"""What the results view shows: counted against an independent tally, and nothing before it is allowed."""

from collections import Counter

from sqlalchemy import select

from db import models
from db.engine import Database
from study.publication import close, unblind
from study.results import study_results
from tests.study.stage import METHODS, Folders, Stage, definition, open_stage


def test_before_the_end_only_progress_is_shown(stage: Stage) -> None:
    stage.participant().start().answer_all()
    with stage.database.read() as db:
        hidden = study_results(db, "trial-run")
    assert not hidden.visible
    assert "when it is closed and unblinded" in hidden.why_hidden
    assert (hidden.completed, hidden.votes) == (1, 12)
    assert hidden.methods == hidden.pairs == hidden.selections == ()
    close(stage.database, "trial-run", now=stage.clock.now)
    with stage.database.read() as db:
        assert not study_results(db, "trial-run").visible
    unblind(stage.database, "trial-run", now=stage.clock.now, actor="owner")
    with stage.database.read() as db:
        assert study_results(db, "trial-run").visible


def test_pair_counts_equal_a_tally_by_hand(database: Database, folders: Folders) -> None:
    with open_stage(database, folders, definition(results="public")) as stage:
        answers = [{"position": 0}, {"position": 1}, {"outcome": "tie", "position": None}]
        for person in range(3):
            participant = stage.participant().start()
            reply = participant.get("/trial")
            while reply["state"] == "running":
                number = reply["trial"]["number"]
                reply = participant.answer(reply["trial"], **answers[(person + number) % 3])
        with database.read() as db:
            results = study_results(db, "trial-run")
            expected = tally(database)
    assert results.visible
    assert results.votes == 3 * 6 * 2
    assert len(results.pairs) == 2 * 3
    found = Counter[tuple[str, frozenset[str], str]]()
    for pair in results.pairs:
        both = frozenset({pair.first, pair.second})
        found[pair.criterion, both, pair.first] += pair.first_chosen
        found[pair.criterion, both, pair.second] += pair.second_chosen
        found[pair.criterion, both, "tie"] += pair.ties
        assert pair.cant_tell == 0
    assert +found == +expected


def tally(database: Database) -> Counter[tuple[str, frozenset[str], str]]:
    """From the raw slots and responses, without the table of votes."""
    with database.read() as db:
        slots = db.execute(
            select(models.TrialSlot.trial_id, models.TrialSlot.position, models.Method.key)
            .join(models.Rendition, models.Rendition.id == models.TrialSlot.rendition_id)
            .join(models.Method, models.Method.id == models.Rendition.method_id)
        ).all()
        responses = db.execute(select(models.Response)).scalars().all()
    shown: dict[int, dict[int, str]] = {}
    for slot in slots:
        shown.setdefault(slot.trial_id, {})[slot.position] = slot.key
    counted = Counter[tuple[str, frozenset[str], str]]()
    for response in responses:
        methods = shown[response.trial_id]
        won = "tie" if response.position is None else methods[response.position]
        counted[response.criterion, frozenset(methods.values()), won] += 1
    return counted


def test_selection_counts_of_a_best_of_n_study_add_up(database: Database, folders: Folders) -> None:
    with open_stage(database, folders, definition(protocol="best_of_n", results="public")) as stage:
        stage.participant().start().answer_all()
        with database.read() as db:
            results = study_results(db, "trial-run")
    assert [selection.method for selection in results.selections] == [*METHODS, *METHODS]
    for criterion in results.criteria:
        of_criterion = [selection for selection in results.selections if selection.criterion == criterion]
        assert sum(selection.chosen for selection in of_criterion) == 6
        assert {selection.of for selection in of_criterion} == {6}
