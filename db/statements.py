"""Statements that run thousands of times a minute: compiled once, then handed to the driver as they are.

SQLAlchemy's own way of running a statement (finding it in a cache, building a context, wrapping rows) took more than
half of the time of an answer (measured: benchmarks/study_answers.py); here it is paid once. In exchange a `Statement`
knows less: values come back as the driver gives them (an enum as its text), and columns have no defaults.
"""

import sqlite3
from collections import namedtuple
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session
from sqlalchemy.sql import Insert

from db.connections import as_sqlite

DRIVER = "driver"
"""In `Session.info` of a write job on SQLite: the connection whose transaction is open for it already."""

Values = Mapping[str, Any]

_SQLITE = SQLiteDialect_pysqlite()


class Statement:
    """A Core statement for a hot path.

    Args:
        statement: a SELECT, INSERT, UPDATE or DELETE with `bindparam` for what differs. An INSERT takes the columns of
            the values it is first given, so it must always be given the same.
    """

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def run(self, db: Session, values: Values) -> None:
        """Run it and look at no row."""
        self._execute(db, values)

    def run_many(self, db: Session, values: Sequence[Values]) -> None:
        """Run it for each of some values with the same keys; for none nothing happens."""
        if not values:
            return
        driver = _driver(db)
        if driver is None:
            compiled = self._for(db.connection().dialect, values[0])
            db.connection().exec_driver_sql(compiled.text, [compiled.named(each) for each in values])
        else:
            compiled = self._for(_SQLITE, values[0])
            driver.executemany(compiled.text, [compiled.in_order(each) for each in values])

    def all(self, db: Session, values: Values) -> list[Any]:
        """Its rows, as named tuples."""
        compiled, rows = self._execute(db, values)
        return list(map(compiled.row, rows))

    def one_or_none(self, db: Session, values: Values) -> Any | None:
        """Its first row as a named tuple; None if there is none."""
        compiled, rows = self._execute(db, values)
        return compiled.row(rows[0]) if rows else None

    def _execute(self, db: Session, values: Values) -> "tuple[_Compiled, Sequence[Any]]":
        driver = _driver(db)
        if driver is not None:
            compiled = self._for(_SQLITE, values)
            return compiled, driver.execute(compiled.text, compiled.in_order(values)).fetchall()
        connection = db.connection()
        compiled = self._for(connection.dialect, values)
        result = connection.exec_driver_sql(compiled.text, compiled.named(values))
        return compiled, result.all() if result.returns_rows else ()

    def _for(self, dialect: Dialect, values: Values) -> "_Compiled":
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _Compiled(self._statement, dialect, values)
        return compiled


def _driver(db: Session) -> sqlite3.Connection | None:
    """SQLite's own connection; None on PostgreSQL."""
    driver = db.info.get(DRIVER)
    if driver is None and db.get_bind().dialect.name == _SQLITE.name:
        return as_sqlite(db.connection().connection.driver_connection)
    return driver


class _Compiled:
    """The text of a statement for one kind of database, and what the driver wants with it."""

    def __init__(self, statement: Any, dialect: Dialect, values: Values) -> None:
        columns = list(values) if isinstance(statement, Insert) and statement.select is None else None
        compiler: Any = statement.compile(dialect=dialect, column_keys=columns)
        # `x IN (...)` becomes as many parameters as there are values; those are constants of the statement here.
        expanded = compiler.construct_expanded_state(dict(values), escape_names=False)
        self.text: str = expanded.statement
        parameters = {name: _plain(value) for name, value in expanded.parameters.items()}
        self._constant = {name: value for name, value in parameters.items() if name not in values}
        self._names: list[str] = list(expanded.positiontup or parameters)
        named: Any = namedtuple  # noqa: PYI024 - the names are known only here
        self.row = named("Row", [str(column.key) for column in statement.exported_columns])._make

    def in_order(self, values: Values) -> list[Any]:
        """For SQLite: one value per question mark."""
        whole = {**self._constant, **values}
        return [_plain(whole[name]) for name in self._names]

    def named(self, values: Values) -> dict[str, Any]:
        """For PostgreSQL: values by their names."""
        constant = self._constant
        return {name: constant[name] if name in constant else _plain(values[name]) for name in self._names}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
