"""Seconds until a first visitor has a first result, and what it costs: the real app, cold, in a real browser.

    python benchmarks/demo_first_result.py [--method asuka-mini] [--everything] [--again 3]

Starts `app.py` with an empty data folder, opens it in Chromium the moment it answers, picks a sample picture, paints a
stroke, presses Run and waits for the finished result. Then the same again in fresh pages of the running server, and
what a pointer event costs on a 12-megapixel photo. Without `--everything` the app is the demo alone (`--only demo`, as
on a Space for it); with it the example study is being made by two processes at the same time. Method, model weights and
operating system's file cache are whatever the machine has: the first page after a reboot reads torch from disk.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import psutil
from playwright.sync_api import Browser, Page, Request, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.conftest import CHROMIUM_FLAGS  # noqa: E402 - after the path is known
from tests.demo.painting import Visitor, photo, save  # noqa: E402
from tests.demo.test_painter_speed import MOVES  # noqa: E402
from tests.serving import free_port  # noqa: E402

PATIENCE_MS = 300_000
POLL_S = 0.05
STROKE = ((0.42, 0.45), (0.5, 0.5), (0.58, 0.42))
"""In shares of the picture's sides: across its middle."""


@dataclass
class Watched:
    """When things happened on a page, and how many bytes it sent.

    Attributes:
        begun: of the navigation.
        seconds: stage -> seconds since then, in order.
        sent: (path, bytes of the body) of every request that had one.
    """

    begun: float
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    sent: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def reached(self, stage: str) -> None:
        """Now."""
        self.seconds[stage] = time.perf_counter() - self.begun

    def bytes_sent(self) -> int:
        """Until now, by everything on the page."""
        return sum(size for _path, size in self.sent)

    def listen(self, page: Page) -> None:
        """Count what the page sends."""

        def sent(request: Request) -> None:
            if request.method == "POST":
                size = int(request.all_headers().get("content-length", 0))  # also of files, which `sizes` leaves out
                self.sent.append((request.url.partition("/gradio_api")[2].partition("?")[0], size))

        page.on("requestfinished", sent)


@contextmanager
def app_served(folder: Path, *options: str) -> Generator[tuple[str, psutil.Process, float]]:
    """The real app on a free port, its data below `folder`: address, process, seconds until it answered."""
    port = free_port()
    environment = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{folder / 'asuka.db'}",
        "ASUKA_DATA_DIR": str(folder / "data"),
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    begun = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port), *options], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        try:
            while "Serving on" not in (folder / "log.txt").read_text():
                if server.poll() is not None:
                    raise RuntimeError((folder / "log.txt").read_text())
                time.sleep(POLL_S)
            yield f"http://127.0.0.1:{port}/", psutil.Process(server.pid), time.perf_counter() - begun
        finally:
            server.terminate()
            server.wait(30)


@contextmanager
def opened(browser: Browser, url: str) -> Generator[tuple[Visitor, Watched]]:
    """A new visitor whose page has just been asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, locale="en-GB")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    watched = Watched(time.perf_counter())
    watched.listen(page)
    page.goto(url, wait_until="commit")
    page.wait_for_selector(".mp-start", state="visible")
    watched.reached("page to be used")
    yield Visitor(page), watched
    context.close()


def run_once(visitor: Visitor, watched: Watched, method: str) -> tuple[int, int]:
    """Paint a stroke, press Run, wait for the result; bytes the page had sent before Run and after it."""
    box = visitor.layer()
    visitor.drag(*[(x * box["w"], y * box["h"]) for x, y in STROKE], steps=8)
    watched.reached("stroke painted")
    chosen = visitor.page.inner_text("#demo-about")
    if method not in chosen:
        raise RuntimeError(f"The page's first choice is not {method}: {chosen[:80]}")
    before = watched.bytes_sent()
    visitor.run()
    watched.reached("result")
    return before, watched.bytes_sent()


def visit(browser: Browser, url: str, method: str) -> Watched:
    """From the address to a finished result on the first sample picture."""
    with opened(browser, url) as (visitor, watched):
        visitor.page.click(".mp-thumbs button >> nth=0")
        visitor.page.wait_for_selector('.mp[data-state="ready"]:not([data-busy="on"])')
        watched.reached("sample picture open")
        before, after = run_once(visitor, watched, method)
        print("  " + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in watched.seconds.items()))
        print(f"  sent: {before:,} bytes before Run, {after - before:,} by Run; {shown_seconds(visitor)}")
        return watched


def shown_seconds(visitor: Visitor) -> str:
    """What the page says of the result."""
    return visitor.page.inner_text(".rv-facts").partition(" · The file")[0]


def pointer_cost(browser: Browser, url: str, folder: Path) -> None:
    """Print what a pointer event costs on a 12-megapixel photo, for three brushes, and what a run of it sends."""
    with opened(browser, url) as (visitor, watched):
        path = save(photo(4000, 3000), folder / "large.jpg", quality=92)
        visitor.open(path)
        box = visitor.layer()
        for brush in (20, 50, 100):
            visitor.menu("clear")
            visitor.page.locator(".mp-size input").fill(str(brush))
            measured = visitor.page.evaluate(MOVES, [box["x"] + 40, box["y"] + 30, box["width"] - 80])
            costs = sorted(cast("list[float]", measured["costs"]))
            print(
                f"  brush {brush:3} %: pointer event median {statistics.median(costs):.2f} ms, "
                f"95 % {costs[int(0.95 * len(costs))]:.2f} ms, longest {costs[-1]:.2f} ms, "
                f"stroke's end {measured['lifted']:.1f} ms"
            )
        visitor.menu("clear")
        visitor.page.locator(".mp-size input").fill("50")
        first = sum(size for path, size in watched.sent if path.endswith("/upload"))
        before, after = run_once(visitor, watched, "")
        again, end = run_once(visitor, watched, "")
        print(f"  the file has {path.stat().st_size:,} bytes, uploaded once: {first:,}")
        print(f"  sent by the first Run {after - before:,} bytes, by the second {end - again:,}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="ASUKA", help="what the first choice's title has to contain")
    parser.add_argument("--everything", action="store_true", help="the whole app, making its example study meanwhile")
    parser.add_argument("--again", type=int, default=3, help="further visits of the running server")
    asked = parser.parse_args()
    options = () if asked.everything else ("--only", "demo")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(CHROMIUM_FLAGS))
        with app_served(Path(name), *options) as (url, _process, seconds):
            print(f"server: answers {seconds:.1f} s after its start, with an empty data folder")
            print("first visitor, at once:")
            first = visit(browser, url, asked.method)
            print(f"  seconds from navigation to result: {first.seconds['result']:.1f}")
            print("later visitors:")
            later = [visit(browser, url, asked.method).seconds["result"] for _ in range(asked.again)]
            if later:
                print(f"  seconds from navigation to result: median {statistics.median(later):.1f}")
            print("a photo of 12 megapixels:")
            pointer_cost(browser, url, Path(name))
        browser.close()


if __name__ == "__main__":
    main()
