"""Copies of the database while people answer, and the way back: newest copy, then the journal, then a recount.

A backup folder holds `snapshots/` (whole copies, each named by its time and its hash), `journal/` and `keys/` (see
`study.journal`). A copy that is older than an erasure is deleted once a newer one lies beside it.
"""

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.connections import DatabaseError, parse_url, sqlite_path
from db.engine import Database
from db.migrate import migrate
from study.design import VERSION
from study.journal import Keys, Replayed, replay
from study.quality import apply_rules
from study.verification import verify

SNAPSHOTS_KEPT = 12
"""An hour at five minutes: a mistake is noticed within that, and older ones lie at the remote place if there is one."""

EVERY_S = 300
"""The design's interval (study.md, section 4.12)."""

READ_AT_ONCE = 1 << 20

COMMITTED_WITHIN = 60_000_000
"""Microseconds between the time an erasure says and its commit; a copy made meanwhile may still hold the answers."""

EPHEMERAL_FILESYSTEMS = frozenset({"tmpfs", "ramfs", "overlay"})
"""What lies there is gone with the machine or the container."""


class BackupError(RuntimeError):
    """A copy that cannot be made or used; the message says what to do."""


class Remote(Protocol):
    """A place elsewhere that mirrors the folder."""

    def push(self, folder: Path, *, forget_history: bool) -> None:
        """Make the remote copy equal to the folder; with `forget_history`, nothing deleted may be found there."""
        ...

    def pull(self, folder: Path) -> bool:
        """Fill the folder from the remote copy; False if there is none."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """A whole copy of the database."""

    path: Path
    made_at: int
    """UTC microseconds"""
    sha256: str


@dataclass(frozen=True)
class Restored:
    """What a restore gave back."""

    snapshot: Snapshot
    replayed: Replayed


@dataclass(frozen=True)
class BackupState:
    """How the backups stand, for the admin page."""

    snapshots: int
    newest_at: int | None
    journal_bytes: int
    problem: str


class Backups:
    """Makes copies of one SQLite database, at once and every so often.

    Args:
        url: of the database.
        folder: of the backups; on another disk if there is one.
        every_s: seconds between copies.
        remote: mirrors the folder after each copy.
        keep: copies kept.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        every_s: float = EVERY_S,
        remote: Remote | None = None,
        keep: int = SNAPSHOTS_KEPT,
    ) -> None:
        self._source = sqlite_path(parse_url(url))
        self._folder = folder
        self._every_s = every_s
        self._remote = remote
        self._keep = keep
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._thread: threading.Thread | None = None
        self._problem = ""

    def start(self) -> None:
        """Make the first copy now, so that the journal of this run has something to stand on; then go on by itself.

        Raises:
            BackupError: when the first copy cannot be made.
        """
        self.copy_now()
        self._thread = threading.Thread(target=self._run, name="backups", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Make a last copy and end; a second call does nothing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self.copy_now()

    def copy_now(self) -> Snapshot:
        """Make a copy, delete what is too old, and push.

        Raises:
            BackupError: when the disk or the remote place refuses.
        """
        with self._busy:
            made = make_snapshot(self._source, self._folder)
            forgotten = self._prune(made)
            if self._remote is not None:
                self._remote.push(self._folder, forget_history=forgotten)
            self._problem = ""
            return made

    def state(self) -> BackupState:
        """How the backups stand."""
        found = snapshots(self._folder)
        size = sum(file.stat().st_size for file in (self._folder / "journal").glob("*.jsonl"))
        return BackupState(len(found), found[-1].made_at if found else None, size, self._problem)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.copy_now()
            except Exception as error:  # noqa: BLE001 - whatever it is, the admin page says so and the next try comes
                self._problem = f"{type(error).__name__}: {error}"

    def _prune(self, newest: Snapshot) -> bool:
        """Delete copies beyond those kept and copies that still hold what was erased; whether there were such."""
        erased = _erasures(newest.path)
        # Erasures destroy their keys at once, unless a terminal was not told of this folder.
        keys = Keys(self._folder / "keys")
        for session in erased:
            keys.destroy(session)
        found = snapshots(self._folder)
        until = max(erased.values(), default=-COMMITTED_WITHIN) + COMMITTED_WITHIN
        tainted = [each for each in found if each.path != newest.path and each.made_at <= until]
        surplus = found[: -self._keep]
        for each in {each.path for each in (*tainted, *surplus)}:
            each.unlink(missing_ok=True)
        return bool(tainted)


def backup_folder(url: str, root: Path) -> Path | None:
    """Where the copies and the journal of a database lie below `root`; None for a server's, which has its own.

    One folder per database file, so that no copy of one is ever taken for another's.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    path = sqlite_path(parsed).absolute()
    mark = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    return root / f"{path.stem}-{mark}"


def make_snapshot(source: Path, folder: Path) -> Snapshot:
    """Copy a SQLite database that is in use; without free pages, so nothing that was deleted comes along.

    Raises:
        BackupError: when it cannot be read or written.
    """
    target = folder / "snapshots"
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = target / "unfinished.part"
    unfinished.unlink(missing_ok=True)
    now = datetime.now(UTC)
    try:
        with closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("VACUUM INTO ?", (str(unfinished),))
        _sync(unfinished)
        digest = _sha256(unfinished)
        path = target / f"{now:%Y%m%dT%H%M%S%fZ}-{digest}.sqlite"
        unfinished.replace(path)
        _sync(target)
    except (sqlite3.Error, OSError) as error:
        raise BackupError(f"No copy of {source} could be made in {target} ({error}); free disk space.") from error
    return Snapshot(path, _micros(now), digest)


def snapshots(folder: Path) -> list[Snapshot]:
    """The copies in a backup folder, oldest first; by their names alone."""
    found: list[Snapshot] = []
    for path in sorted((folder / "snapshots").glob("*.sqlite")):
        stamp, _, digest = path.stem.partition("-")
        made = datetime.strptime(stamp, "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
        found.append(Snapshot(path, _micros(made), digest))
    return found


def restore(folder: Path, url: str) -> Restored:
    """Make a database from a backup folder: the newest whole copy, the journal on top, everything recounted.

    Raises:
        BackupError: when there is a database at `url` already, or no copy is whole.
        JournalError: for a journal that was changed.
        CountError: when what came out does not add up.
    """
    target = sqlite_path(parse_url(url))
    if target.exists():
        raise BackupError(f"{target} is there already; move it away first, a restore overwrites nothing.")
    newest = next((each for each in reversed(snapshots(folder)) if _sha256(each.path) == each.sha256), None)
    if newest is None:
        raise BackupError(f"{folder} holds no whole copy of a database; name the folder with `snapshots` in it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until all of it is right: a restore that breaks off leaves no half database behind.
    unfinished = target.with_name(f"{target.name}.restoring")
    unfinished.write_bytes(newest.path.read_bytes())
    unfinished_url = f"sqlite:///{unfinished}"
    migrate(unfinished_url)
    with Database.open(unfinished_url) as database:
        replayed = database.write(lambda db: replay(db, folder))
        now = _micros(datetime.now(UTC))
        database.write(lambda db: _judge(db, now=now))
        verify(database)
    with closing(sqlite3.connect(unfinished)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _sync(unfinished)
    for rest in ("-wal", "-shm", ".lock"):
        unfinished.with_name(unfinished.name + rest).unlink(missing_ok=True)
    unfinished.replace(target)
    _sync(target.parent)
    return Restored(newest, replayed)


def _judge(db: Session, *, now: int) -> None:
    """Whoever completed since the copy was made and was not judged yet is judged by the definitions' rules."""
    for version_id in db.scalars(select(VERSION.c.id)).all():
        apply_rules(db, version_id, at=now)


def restore_if_absent(folder: Path, url: str, remote: Remote | None = None) -> Restored | None:
    """For the start of the app: bring the database back if its file is gone and there is a backup of it.

    Returns:
        None when the database is there, or when there is nothing to restore (the first start).
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite" or sqlite_path(parsed).exists():
        return None
    if not snapshots(folder) and (remote is None or not remote.pull(folder)):
        return None
    return restore(folder, url)


def refuse_ephemeral(
    url: str, *, allowed: bool, remote: bool, environment: Mapping[str, str] = os.environ,
    filesystem_of: Callable[[Path], str] | None = None,
) -> None:  # fmt: skip
    """Refuse to ask people for answers that the next restart would lose.

    Args:
        url: of the database.
        allowed: the researcher said that losing them is fine.
        remote: copies are pushed elsewhere.
        environment: of the process; a Hugging Face Space is known by SPACE_ID.
        filesystem_of: names the kind of file system a path lies on; asks the kernel by default.

    Raises:
        DatabaseError: saying what to do instead.
    """
    parsed = parse_url(url)
    if allowed or remote or parsed.get_backend_name() != "sqlite":
        return
    path = sqlite_path(parsed)
    kind = (filesystem_of or _filesystem)(path)
    if "SPACE_ID" in environment or kind in EPHEMERAL_FILESYSTEMS:
        where = "a Hugging Face Space" if "SPACE_ID" in environment else f"a {kind} file system"
        raise DatabaseError(
            f"{path} lies on {where}, which forgets it at the next restart: answers would be lost. Use PostgreSQL or a "
            "disk that stays, push backups to a dataset (ASUKA_BACKUP_DATASET), or say that it may be lost "
            "(ASUKA_ALLOW_EPHEMERAL=true, `launch --ephemeral`)."
        )


def _filesystem(path: Path) -> str:
    """The kind of the file system that holds a path, by the longest mount point above it; "" where /proc is absent."""
    mounts = Path("/proc/self/mounts")
    if not mounts.is_file():
        return ""
    best, kind = "", ""
    for line in mounts.read_text(encoding="utf-8").splitlines():
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def _erasures(copy: Path) -> dict[str, int]:
    """When each erased session was erased, by its public id."""
    query = (
        "SELECT session.public_id, withdrawal.at FROM withdrawal JOIN session ON session.id = withdrawal.session_id "
        "WHERE withdrawal.scope = 'erase'"
    )
    with closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as connection:
        return {str(public): int(at) for public, at in connection.execute(query)}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
