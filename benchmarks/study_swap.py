"""How long the next trial's pictures take to appear, in Chromium on a slow line, and whether anything moves.

    python benchmarks/study_swap.py [--trials 20] [--look-s 4] [--mbit 1.5] [--scale 1]

Walks a pairwise study on photographs of `scale` times 240 x 180 pixels by keyboard. Chromium's own emulation slows the
network to `mbit` megabits a second with 40 ms of delay; every trial is looked at for `look-s` seconds, during which the
page fetches and decodes the next one. The time runs from the key that says Next to the first frame after the new
pictures are in the page. Limits (the study's design, section 5): 100 ms at the 95th percentile, no layout shift.

No page can show what the line has not brought: `mbit` megabits carry look_s * mbit / 8 megabytes while a trial is
looked at, 0.75 by default, and a trial has three pictures. How much they are is told too.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright
from sqlalchemy import select

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.study_timing import served  # noqa: E402 - after the path is known
from db import models  # noqa: E402
from db.engine import Database  # noqa: E402
from study.blinding import served_length  # noqa: E402
from tests.conftest import CHROMIUM_FLAGS  # noqa: E402
from tests.study.photographs import NINE  # noqa: E402

SLUG = "swap"
LIMIT_MS = 100
DELAY_MS = 40
"""Of a mobile line (our choice); a page that fetched on demand would pay it at least once."""

SWAPS = 5
"""Of one person: everybody is asked once about each of six photographs, so several people are needed for many."""

PATIENCE_MS = 60_000

WATCH = """
window.swaps = [];
window.shift = [0, 0];
let pressed = null;
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) window.shift[each.hadRecentInput ? 1 : 0] += each.value;
}).observe({ type: "layout-shift", buffered: true });
addEventListener("keydown", (event) => { if (event.key === "Enter") pressed = performance.now(); }, true);
window.watchTiles = () => {
  const tiles = document.querySelector("#study").shadowRoot.querySelector(".tiles");
  new MutationObserver(() => {
    if (pressed === null) return;
    const began = pressed;
    pressed = null;
    // A message posted from within a frame's callback arrives after that frame was painted.
    const painted = new MessageChannel();
    painted.port1.onmessage = () => window.swaps.push(performance.now() - began);
    requestAnimationFrame(() => painted.port2.postMessage(0));
  }).observe(tiles, { childList: true });
};
"""


DEFINITION: dict[str, object] = {
    "study": SLUG,
    "title": "Swap",
    "contrasts": "round_robin",
    "methods": [{"key": key} for key in NINE],
    "criteria": [{"key": "better", "title": "Better", "question": "Which is better?"}],
    "plan": {"real": SWAPS + 1},
    "timing": {"min_view_ms": 0},
    "consent": {"text": "None needed: these are not people."},
}


def person(page: Page, address: str, look_s: float, mbit: float) -> tuple[list[float], list[float]]:
    """Milliseconds of each swap of one person, and the layout's shift: as browsers count it, and after keys."""
    page.add_init_script(WATCH)
    network = page.context.new_cdp_session(page)
    page.goto(address)
    page.get_by_role("button", name="Take part").click()
    page.get_by_role("button", name="Start").click()
    rate = mbit * 1e6 / 8
    slow = {"offline": False, "latency": DELAY_MS, "downloadThroughput": rate, "uploadThroughput": rate}
    network.send("Network.emulateNetworkConditions", slow)
    expect(page.locator(".candidate img[data-layer=own]").last).to_be_visible(timeout=PATIENCE_MS)
    page.evaluate("watchTiles()")
    for swapped in range(1, SWAPS + 1):
        page.wait_for_timeout(1000 * look_s)  # somebody looks
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        page.wait_for_function("wanted => window.swaps.length === wanted", arg=swapped, timeout=PATIENCE_MS)
    swaps, shift = page.evaluate("[window.swaps, window.shift]")
    return list(swaps), list(shift)


def most_kb(database: Database) -> float:
    """Of the three pictures of any trial, as they are served."""
    with database.read() as db:
        return max(3 * served_length([length]) for length in db.execute(select(models.Blob.length)).scalars()) / 1000


def main() -> int:
    """Walk, measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--look-s", type=float, default=4)
    parser.add_argument("--mbit", type=float, default=1.5)
    parser.add_argument("--scale", type=int, default=1)
    given = parser.parse_args()
    swaps: list[float] = []
    shifts: list[list[float]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), DEFINITION, scale=given.scale) as (database, port),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(CHROMIUM_FLAGS))
        while len(swaps) < given.trials:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            found, shift = person(page, f"http://127.0.0.1:{port}/study/{SLUG}", given.look_s, given.mbit)
            swaps += found
            shifts.append(shift)
            page.context.close()
        browser.close()
        kilobytes = most_kb(database)
    p95 = statistics.quantiles(swaps, n=20)[-1]
    spread = f"median {statistics.median(swaps):.0f} ms, p95 {p95:.0f} ms, most {max(swaps):.0f} ms"
    print(f"{len(swaps)} swaps of up to {kilobytes:.0f} kB at {given.mbit:g} Mbit/s: {spread}")
    usual, after_keys = (max(session) for session in zip(*shifts, strict=True))
    print(f"layout shift {usual:g}, and {after_keys:g} within half a second of a key, which browsers do not count")
    return int(p95 > LIMIT_MS or usual > 0)


if __name__ == "__main__":
    sys.exit(main())
