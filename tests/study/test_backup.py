"""Backups: copies are whole, hold nothing erased, come back by themselves, and a dataset mirrors them."""

import inspect
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from huggingface_hub import HfApi
from sqlalchemy import func, select

from db import models
from db.connections import DatabaseError
from db.engine import Database
from study.api import router
from study.backup import (
    BackupError,
    Backups,
    backup_folder,
    make_snapshot,
    refuse_ephemeral,
    restore,
    restore_if_absent,
    snapshots,
)
from study.cli import main
from study.journal import Journal
from study.remote_backup import HubMirror, RemoteBackupError, hub_mirror
from tests.study.stage import Participant


@pytest.fixture
def url(tmp_path: Path, launched_file: Path) -> str:
    shutil.copy(launched_file, tmp_path / "live.sqlite")
    return f"sqlite:///{tmp_path / 'live.sqlite'}"


def answers(url: str) -> int:
    with Database.open(url, read_only=True) as database, database.read() as db:
        return db.execute(select(func.count()).select_from(models.Response)).scalar_one()


def take_part(url: str, *, journal: Journal | None = None, erase: bool = False) -> None:
    with Database.open(url, follower=journal) as database:
        app = FastAPI(openapi_url=None)
        app.include_router(router(database))
        with TestClient(app) as client:
            participant = Participant(client).start()
            participant.answer_all()
            if erase:
                participant.post("/sessions/me/withdraw", {"erase": True})


def test_a_copy_is_named_by_its_hash_and_is_a_whole_database(url: str, tmp_path: Path) -> None:
    take_part(url)
    made = make_snapshot(tmp_path / "live.sqlite", tmp_path / "backups")
    assert [each.path for each in snapshots(tmp_path / "backups")] == [made.path]
    with closing(sqlite3.connect(made.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM response").fetchone() == (12,)


def test_a_damaged_copy_is_passed_over_for_the_one_before(url: str, tmp_path: Path) -> None:
    first = make_snapshot(tmp_path / "live.sqlite", tmp_path / "backups")
    take_part(url)
    second = make_snapshot(tmp_path / "live.sqlite", tmp_path / "backups")
    second.path.write_bytes(second.path.read_bytes()[:-1])
    back = f"sqlite:///{tmp_path / 'back.sqlite'}"
    assert restore(tmp_path / "backups", back).snapshot == first
    assert answers(back) == 0
    first.path.write_bytes(b"nothing")
    with pytest.raises(BackupError, match="no whole copy"):
        restore(tmp_path / "backups", f"sqlite:///{tmp_path / 'other.sqlite'}")


def test_a_restore_overwrites_nothing(url: str, tmp_path: Path) -> None:
    make_snapshot(tmp_path / "live.sqlite", tmp_path / "backups")
    with pytest.raises(BackupError, match="is there already"):
        restore(tmp_path / "backups", url)


def test_only_so_many_copies_are_kept(url: str, tmp_path: Path) -> None:
    backups = Backups(url, tmp_path / "backups", keep=2)
    made = [backups.copy_now() for _ in range(4)]
    assert [each.path for each in snapshots(tmp_path / "backups")] == [each.path for each in made[2:]]
    assert backups.state().newest_at == made[-1].made_at


def test_what_was_erased_is_in_no_copy_and_no_key_is_left(url: str, tmp_path: Path) -> None:
    remote = Mirror()
    journal = Journal(tmp_path / "backups")
    backups = Backups(url, tmp_path / "backups", remote=remote)
    take_part(url, journal=journal)
    backups.copy_now()
    with closing(sqlite3.connect(tmp_path / "live.sqlite")) as connection:
        token = connection.execute("SELECT token_hash FROM trial_slot").fetchone()[0]
        session = connection.execute("SELECT public_id FROM session").fetchone()[0]
    assert any(token.encode() in each.path.read_bytes() for each in snapshots(tmp_path / "backups"))
    assert main(["erase", "trial-run", "--session", session, "--database", url]) == 0
    backups.copy_now()
    assert not any(token.encode() in each.path.read_bytes() for each in snapshots(tmp_path / "backups"))
    assert not list((tmp_path / "backups" / "keys").iterdir())
    assert remote.forgot == [False, True]
    journal.close()


def test_an_erasure_in_the_terminal_destroys_the_key_at_once_and_a_restore_knows_of_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASUKA_BACKUP_DIR", str(tmp_path / "kept"))
    folder = backup_folder(url, tmp_path / "kept")
    assert folder is not None
    journal = Journal(folder)
    take_part(url, journal=journal)
    journal.close()
    make_snapshot(tmp_path / "live.sqlite", folder)
    with Database.open(url, read_only=True) as database, database.read() as db:
        session = db.execute(select(models.StudySession.public_id)).scalar_one()
    assert len(list((folder / "keys").iterdir())) == 1
    assert main(["erase", "trial-run", "--session", session, "--database", url]) == 0
    assert list((folder / "keys").iterdir()) == []
    back = f"sqlite:///{tmp_path / 'back.sqlite'}"
    assert restore(folder, back).replayed.erased == 1  # the copy was made before the erasure
    assert answers(back) == 0


@dataclass
class Mirror:
    """A remote place that remembers what it was told."""

    forgot: list[bool] = field(default_factory=list)

    def push(self, folder: Path, *, forget_history: bool) -> None:
        del folder
        self.forgot.append(forget_history)

    def pull(self, folder: Path) -> bool:
        raise AssertionError(folder)


@dataclass
class LocalHub:
    """The hub as a folder: what `HfApi` does with the same arguments, without a network."""

    root: Path
    private: bool = True
    squashed: int = 0

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        assert (repo_type, private, exist_ok) == ("dataset", True, True)
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)

    def repo_info(self, repo_id: str, *, repo_type: str) -> SimpleNamespace:
        assert (self.root / repo_id).is_dir()
        assert repo_type == "dataset"
        return SimpleNamespace(private=self.private)

    def upload_folder(
        self,
        *,
        repo_id: str,
        repo_type: str,
        folder_path: str,
        allow_patterns: list[str],
        delete_patterns: list[str],
        commit_message: str,
    ) -> None:
        assert (repo_type, bool(commit_message)) == ("dataset", True)
        there = self.root / repo_id
        for file in self._matching(there, delete_patterns):
            file.unlink()
        for file in self._matching(Path(folder_path), allow_patterns):
            target = there / file.relative_to(folder_path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)

    def snapshot_download(self, repo_id: str, *, repo_type: str, local_dir: str, allow_patterns: list[str]) -> None:
        self.upload_folder(
            repo_id=str(Path(local_dir).absolute()),
            repo_type=repo_type,
            folder_path=str(self.root / repo_id),
            allow_patterns=allow_patterns,
            delete_patterns=[],
            commit_message="download",
        )

    def super_squash_history(self, repo_id: str, *, repo_type: str, commit_message: str) -> None:
        assert (repo_id, repo_type, bool(commit_message)) == ("me/study", "dataset", True)
        self.squashed += 1

    @staticmethod
    def _matching(folder: Path, patterns: list[str]) -> list[Path]:
        files = [file for file in folder.rglob("*") if file.is_file()]
        return [f for f in files if any(fnmatch(str(f.relative_to(folder)), pattern) for pattern in patterns)]


def test_the_fake_hub_has_the_interface_of_the_real_one() -> None:
    for name in ("create_repo", "repo_info", "upload_folder", "snapshot_download", "super_squash_history"):
        wanted = set(inspect.signature(getattr(LocalHub, name)).parameters)
        assert wanted <= set(inspect.signature(getattr(HfApi, name)).parameters), name


def test_a_wiped_disk_comes_back_from_the_dataset_with_every_answer(url: str, tmp_path: Path) -> None:
    hub = LocalHub(tmp_path / "hub")
    mirror = HubMirror("me/study", hub)
    local = tmp_path / "backups"
    journal = Journal(local)
    backups = Backups(url, local, every_s=3600, remote=mirror)
    backups.start()
    take_part(url, journal=journal)
    journal.close()
    mirror.push(local, forget_history=False)  # the journal is ahead of the copy
    backups.stop()
    shutil.rmtree(local)
    (tmp_path / "live.sqlite").unlink()
    back = restore_if_absent(local, url, mirror)
    assert back is not None
    assert answers(url) == 12
    assert restore_if_absent(local, url, mirror) is None


def test_the_first_start_restores_nothing(tmp_path: Path) -> None:
    mirror = HubMirror("me/study", LocalHub(tmp_path / "hub"))
    assert restore_if_absent(tmp_path / "backups", f"sqlite:///{tmp_path / 'new.sqlite'}", mirror) is None
    assert restore_if_absent(tmp_path / "backups", "postgresql://nobody@nowhere/x", mirror) is None


def test_a_public_dataset_and_a_missing_token_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteBackupError, match="is public"):
        HubMirror("me/study", LocalHub(tmp_path / "hub", private=False))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(RemoteBackupError, match="HF_TOKEN is not set"):
        hub_mirror("me/study")


def test_a_disk_that_forgets_is_refused_unless_told() -> None:
    def tmpfs(_path: Path) -> str:
        return "tmpfs"

    def ext4(_path: Path) -> str:
        return "ext4"

    url = "sqlite:////data/study.sqlite"
    with pytest.raises(DatabaseError, match="lies on a tmpfs file system"):
        refuse_ephemeral(url, allowed=False, remote=False, environment={}, filesystem_of=tmpfs)
    with pytest.raises(DatabaseError, match="lies on a Hugging Face Space"):
        refuse_ephemeral(url, allowed=False, remote=False, environment={"SPACE_ID": "a/b"}, filesystem_of=ext4)
    refuse_ephemeral(url, allowed=True, remote=False, environment={}, filesystem_of=tmpfs)
    refuse_ephemeral(url, allowed=False, remote=True, environment={}, filesystem_of=tmpfs)
    refuse_ephemeral(url, allowed=False, remote=False, environment={}, filesystem_of=ext4)
    refuse_ephemeral("postgresql://a@b/c", allowed=False, remote=False, environment={"SPACE_ID": "a/b"})
