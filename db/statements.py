"""Statements that run thousands of times a minute: compiled once, then handed to the driver as they are.

SQLAlchemy's own way of running a statement (finding it in a cache, building a context, wrapping rows) took more than
half of the time of an answer (measured: benchmarks/study_answers.py); here it is paid once. In exchange a `Statement`
knows less: values come back as the driver gives them (an enum as its text), and columns have no defaults.
"""

from collections import namedtuple
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session
from sqlalchemy.sql import Insert

from db.connections import as_sqlite

Values = Mapping[str, Any]


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
        compiled, connection = self._for(db, values)
        compiled.execute(connection, compiled.bound(values))

    def run_many(self, db: Session, values: Sequence[Values]) -> None:
        """Run it for each of some values with the same keys; for none nothing happens."""
        if values:
            compiled, connection = self._for(db, values[0])
            compiled.execute_many(connection, [compiled.bound(each) for each in values])

    def all(self, db: Session, values: Values) -> list[Any]:
        """Its rows, as named tuples."""
        compiled, connection = self._for(db, values)
        return list(map(compiled.row, compiled.execute(connection, compiled.bound(values))))

    def one_or_none(self, db: Session, values: Values) -> Any | None:
        """Its first row as a named tuple; None if there is none."""
        rows = self.all(db, values)
        return rows[0] if rows else None

    def _for(self, db: Session, values: Values) -> "tuple[_Compiled, Connection]":
        connection = db.connection()
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _Compiled(self._statement, dialect, values)
        return compiled, connection


class _Compiled:
    """The text of a statement for one kind of database."""

    def __init__(self, statement: Any, dialect: Dialect, values: Values) -> None:
        columns = list(values) if isinstance(statement, Insert) and statement.select is None else None
        compiler: Any = statement.compile(dialect=dialect, column_keys=columns)
        # `x IN (...)` becomes as many parameters as there are values; those are constants of the statement here.
        expanded = compiler.construct_expanded_state(dict(values), escape_names=False)
        self._sqlite = dialect.name == "sqlite"
        self._text: str = expanded.statement
        constant = {name: _plain(value) for name, value in expanded.parameters.items()}
        self._names: list[str] = list(expanded.positiontup if self._sqlite else constant)
        self._constant = {name: value for name, value in constant.items() if name not in values}
        named: Any = namedtuple  # noqa: PYI024 - the names are known only here
        self.row = named("Row", [str(column.key) for column in statement.exported_columns])._make

    def bound(self, values: Values) -> Any:
        constant = self._constant
        if self._sqlite:
            return [constant[name] if name in constant else _plain(values[name]) for name in self._names]
        return {name: constant[name] if name in constant else _plain(values[name]) for name in self._names}

    def execute(self, connection: Connection, bound: Any) -> Sequence[Any]:
        if self._sqlite:
            return as_sqlite(connection.connection.driver_connection).execute(self._text, bound).fetchall()
        result = connection.exec_driver_sql(self._text, bound)
        return result.all() if result.returns_rows else ()

    def execute_many(self, connection: Connection, bound: list[Any]) -> None:
        if self._sqlite:
            as_sqlite(connection.connection.driver_connection).executemany(self._text, bound)
        else:
            connection.exec_driver_sql(self._text, bound)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
