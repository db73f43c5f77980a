"""What visitors upload and what methods make of it is gone after its time to live."""

import os
import threading
from pathlib import Path

from demo.sweeping import keep_sweeping, sweep

DAY = 86_400


def age(path: Path) -> float:
    return path.stat().st_mtime


def test_a_file_lives_as_long_as_it_may_and_no_longer(tmp_path: Path) -> None:
    old = tmp_path / "a1b2" / "photo.jpg"
    old.parent.mkdir()
    old.write_bytes(b"photo")
    assert sweep(tmp_path, keep_s=DAY, now=age(old) + DAY - 1) == 0
    assert old.is_file()
    assert sweep(tmp_path, keep_s=DAY, now=age(old) + DAY + 1) == 1
    assert list(tmp_path.iterdir()) == []
    assert sweep(tmp_path / "never made", keep_s=DAY, now=0) == 0


def test_only_the_old_ones_go(tmp_path: Path) -> None:
    paths = [tmp_path / name / "result.png" for name in ("old", "new")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"png")
    now = max(age(path) for path in paths) + 2 * DAY
    os.utime(paths[1], (now, now))
    assert sweep(tmp_path, keep_s=DAY, now=now) == 1
    assert [path.is_file() for path in paths] == [False, True]


def test_what_a_link_points_to_stays(tmp_path: Path) -> None:
    precious = tmp_path / "elsewhere" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("kept")
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "link").symlink_to(precious.parent, target_is_directory=True)
    sweep(folder, keep_s=DAY, now=age(precious) + 10 * DAY)
    assert precious.read_text() == "kept"
    assert list(folder.iterdir()) == []


def test_it_goes_on_sweeping_by_the_clock_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"photo")
    asked = threading.Event()
    times = iter([age(path), age(path) + 2 * DAY])

    def clock() -> float:
        now = next(times, None)
        if now is None:
            asked.set()
            return 0.0
        return now

    ended = keep_sweeping(tmp_path, keep_s=DAY, every_s=0.001, clock=clock)
    assert asked.wait(10)
    ended.set()
    assert not path.exists()
