"""Numbers and features that were measured once, by the content they were measured on: one SQLite file.

Only the process that was started writes. Everything measured so far survives a kill, and other files, other weights or
another meaning of a number are another key.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

LONGEST_WAIT = 60.0
"""Seconds to wait for another run that writes to the same store."""

_TABLES = """
CREATE TABLE IF NOT EXISTS score (key TEXT, instrument TEXT, numbers TEXT NOT NULL, PRIMARY KEY (key, instrument));
CREATE TABLE IF NOT EXISTS feature (key TEXT, instrument TEXT, vector BLOB NOT NULL, PRIMARY KEY (key, instrument));
"""


class StoreError(ValueError):
    """A store that cannot be opened; the message says what to do."""


class Store:
    """Scores and feature vectors by content key and instrument identity."""

    def __init__(self, file: Path) -> None:
        """Open or make the file.

        Raises:
            StoreError: when it cannot be opened or is no store.
        """
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(file, timeout=LONGEST_WAIT)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.executescript(_TABLES)
        except (OSError, sqlite3.DatabaseError) as error:
            raise StoreError(f"{file} cannot be used as a store of measurements ({error}); delete it.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()

    def has(self, table: str, key: str, instrument: str) -> bool:
        """Whether "score" or "feature" has an entry."""
        query = {
            "score": "SELECT 1 FROM score WHERE key = ? AND instrument = ?",
            "feature": "SELECT 1 FROM feature WHERE key = ? AND instrument = ?",
        }[table]
        return self._database.execute(query, (key, instrument)).fetchone() is not None

    def keep(
        self,
        scores: Iterable[tuple[str, str, Mapping[str, float]]],
        features: Iterable[tuple[str, str, Vector]],
    ) -> None:
        """Write (key, instrument, what was measured) in one transaction."""
        with self._database:
            rows = [(key, instrument, json.dumps(dict(numbers))) for key, instrument, numbers in scores]
            self._database.executemany("INSERT OR REPLACE INTO score VALUES (?, ?, ?)", rows)
            vectors = [(key, name, np.asarray(vector, np.float32).tobytes()) for key, name, vector in features]
            self._database.executemany("INSERT OR REPLACE INTO feature VALUES (?, ?, ?)", vectors)

    def columns(self, keys: Sequence[str], instruments: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """All numbers of these cases by name, rows in the order of the keys; all of them must be there."""
        told: dict[str, NDArray[np.float64]] = {}
        query = "SELECT numbers FROM score WHERE key = ? AND instrument = ?"
        with closing(self._database.cursor()) as cursor:
            for row, key in enumerate(keys):
                for instrument in instruments:
                    for name, number in json.loads(cursor.execute(query, (key, instrument)).fetchone()[0]).items():
                        told.setdefault(name, np.full(len(keys), np.nan))[row] = number
        return told

    def write_matrix(self, keys: Sequence[str], instrument: str, file: Path) -> Vector:
        """Features of these keys as an (n, width) array that lies in `file`, mapped, not in memory."""
        vectors = self.vectors(keys, instrument)
        first = next(vectors)
        matrix = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(len(keys), len(first)))
        matrix[0] = first
        for row, vector in enumerate(vectors, start=1):
            matrix[row] = vector
        matrix.flush()
        return matrix

    def vectors(self, keys: Sequence[str], instrument: str) -> Iterator[Vector]:
        """The features of these keys, one by one; all of them must be there."""
        query = "SELECT vector FROM feature WHERE key = ? AND instrument = ?"
        with closing(self._database.cursor()) as cursor:
            for key in keys:
                yield np.frombuffer(cursor.execute(query, (key, instrument)).fetchone()[0], np.float32)
