"""Statements for hot paths: the same rows as SQLAlchemy's own way of running them, on both databases."""

import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from db import models
from db.engine import Database
from db.statements import Statement

STUDY = models.Base.metadata.tables["study"]

ADD = Statement(insert(STUDY).returning(STUDY.c.id, STUDY.c.slug))
ADD_MANY = Statement(insert(STUDY))
FIND = Statement(
    select(STUDY.c.id, STUDY.c.slug)
    .where(STUDY.c.slug.in_(("first", "second")), STUDY.c.created_at >= bindparam("since"))
    .order_by(STUDY.c.id)
)
RENAME = Statement(update(STUDY).where(STUDY.c.slug == bindparam("old")).values(slug=bindparam("new")))


def test_rows_are_added_found_and_changed_as_sqlalchemy_would(database: Database) -> None:
    def job(db: Session) -> list[tuple[int, str]]:
        (added,) = ADD.all(db, {"slug": "first", "created_at": 1})
        assert added.slug == "first"
        ADD_MANY.run_many(db, [{"slug": slug, "created_at": 2} for slug in ("second", "third")])
        ADD_MANY.run_many(db, [])
        assert FIND.one_or_none(db, {"since": 9}) is None
        assert [row.slug for row in FIND.all(db, {"since": 2})] == ["second"]
        RENAME.run(db, {"old": "second", "new": "2nd"})
        found = FIND.one_or_none(db, {"since": 0})
        assert found is not None
        assert (found.id, found.slug) == (added.id, "first")
        return [(row.id, row.slug) for row in db.execute(select(STUDY.c.id, STUDY.c.slug).order_by(STUDY.c.id))]

    stored = database.write(job)
    assert [slug for _, slug in stored] == ["first", "2nd", "third"]
    with database.read() as db:
        assert [tuple(row) for row in db.execute(select(STUDY.c.id, STUDY.c.slug).order_by(STUDY.c.id))] == stored
        assert [row.slug for row in FIND.all(db, {"since": 0})] == ["first"]


def test_what_a_failed_job_did_is_undone(database: Database) -> None:
    def job(db: Session) -> None:
        ADD_MANY.run_many(db, [{"slug": "lost", "created_at": 1}])
        raise RuntimeError("undone")

    with pytest.raises(RuntimeError, match="undone"):
        database.write(job)
    with database.read() as db:
        assert db.execute(select(STUDY.c.id)).first() is None
