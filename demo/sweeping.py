"""Uploads and results are deleted after a time to live, also those that a killed server left behind.

Gradio's `delete_cache` knows only what the running process has sent to a browser; this looks at the folder itself.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)


def sweep(folder: Path, *, keep_s: float, now: float) -> int:
    """Delete every file below `folder` that was last written more than `keep_s` seconds before `now`.

    Folders that are empty then go too, not `folder` itself. Links are deleted, never followed.

    Args:
        folder: of the app alone; it need not exist.
        keep_s: seconds that a file lives.
        now: seconds since 1970, as `time.time()`.

    Returns:
        How many files were deleted.
    """
    deleted = 0
    for path in sorted(folder.rglob("*"), reverse=True):  # what is inside a folder before the folder
        try:
            if path.is_dir() and not path.is_symlink():
                if now - path.stat().st_mtime > keep_s and not any(path.iterdir()):
                    path.rmdir()
            elif now - path.lstat().st_mtime > keep_s:
                path.unlink()
                deleted += 1
        except OSError as error:  # a file that another sweep took, or a folder that has just got one
            _log.info("%s stays: %s", path, error)
    return deleted


def keep_sweeping(
    folder: Path, *, keep_s: float, every_s: float, clock: Callable[[], float] = time.time
) -> threading.Event:
    """Sweep now and every `every_s` seconds, in a thread; set what comes back to end it."""
    ended = threading.Event()

    def work() -> None:
        while True:
            sweep(folder, keep_s=keep_s, now=clock())
            if ended.wait(every_s):
                return

    threading.Thread(target=work, name="sweeping", daemon=True).start()
    return ended
