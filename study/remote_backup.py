"""The backup folder mirrored in a private dataset on the Hugging Face hub, for a host whose disk forgets.

Nothing here imports `huggingface_hub`: `hub_mirror` does, once a dataset is named, so that a study host needs neither
network nor token. What was acknowledged since the last push is lost with the disk; the interval is the loss at most.
"""

import os
from pathlib import Path
from typing import Any, Protocol

PARTS = ("snapshots", "journal", "keys")
"""The folders of a backup; nothing else in the dataset is touched."""

PUBLIC_SPACE_TOKEN = "HF_TOKEN"  # noqa: S105 - the name of the variable the hub itself documents


class RemoteBackupError(RuntimeError):
    """The dataset cannot be used for backups; the message says what to do."""


class Hub(Protocol):
    """What is needed of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> object:
        """A dataset of that name from now on."""
        ...

    def repo_info(self, repo_id: str, *, repo_type: str) -> Any:
        """What the hub says of it; `private` among it."""
        ...

    def upload_folder(
        self,
        *,
        repo_id: str,
        repo_type: str,
        folder_path: str,
        allow_patterns: list[str],
        delete_patterns: list[str],
        commit_message: str,
    ) -> object:
        """Files of a folder, those deleted here deleted there."""
        ...

    def snapshot_download(self, repo_id: str, *, repo_type: str, local_dir: str, allow_patterns: list[str]) -> object:
        """Files of the dataset into a folder."""
        ...

    def super_squash_history(self, repo_id: str, *, repo_type: str, commit_message: str) -> object:
        """One commit instead of all there were."""
        ...


class HubMirror:
    """A private dataset that mirrors the backup folder; a `study.backup.Remote`.

    Args:
        dataset: `owner/name`; created, private, if there is none.
        hub: usually `huggingface_hub.HfApi(token=...)`.

    Raises:
        RemoteBackupError: when the dataset is public: answers and keys must never lie there.
    """

    def __init__(self, dataset: str, hub: Hub) -> None:
        self._dataset = dataset
        self._hub = hub
        hub.create_repo(dataset, repo_type="dataset", private=True, exist_ok=True)
        if not hub.repo_info(dataset, repo_type="dataset").private:
            raise RemoteBackupError(f"The dataset {dataset} is public; make it private, or name another one.")

    def push(self, folder: Path, *, forget_history: bool) -> None:
        """Make the dataset equal to the folder, in one commit; what was deleted here is deleted there.

        Args:
            folder: of the backups.
            forget_history: also drop the commits that still hold what was deleted (after an erasure).
        """
        everything = [f"{part}/*" for part in PARTS]
        self._hub.upload_folder(
            repo_id=self._dataset,
            repo_type="dataset",
            folder_path=str(folder),
            allow_patterns=everything,
            delete_patterns=everything,
            commit_message="Backup",
        )
        if forget_history:
            self._hub.super_squash_history(self._dataset, repo_type="dataset", commit_message="Backup")

    def pull(self, folder: Path) -> bool:
        """Fill the folder from the dataset; False if it holds no copy of a database."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        everything = [f"{part}/*" for part in PARTS]
        self._hub.snapshot_download(
            self._dataset, repo_type="dataset", local_dir=str(folder), allow_patterns=everything
        )
        return any((folder / "snapshots").glob("*.sqlite"))


def hub_mirror(dataset: str) -> HubMirror:
    """The mirror of a dataset, with the token of the environment variable HF_TOKEN.

    Raises:
        RemoteBackupError: when the token or the library is missing.
    """
    token = os.environ.get(PUBLIC_SPACE_TOKEN)
    if not token:
        raise RemoteBackupError(
            f"Backups go to the dataset {dataset}, but {PUBLIC_SPACE_TOKEN} is not set; give a token that may write it."
        )
    try:
        from huggingface_hub import HfApi  # noqa: PLC0415 - only where a dataset is named
    except ImportError as error:
        raise RemoteBackupError("Pushing backups needs huggingface_hub: pip install huggingface_hub.") from error
    return HubMirror(dataset, HfApi(token=token))
