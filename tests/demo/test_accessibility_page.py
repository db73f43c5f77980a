"""The demo for everybody: axe-core finds nothing serious in light or dark, and the keyboard reaches everything."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.demo.conftest import OpenPage
from tests.demo.painting import Visitor

pytestmark = pytest.mark.browser

GRADIOS_OWN: dict[str, str] = {}
"""Selector -> why: faults of Gradio's components that nothing of ours can mend. None at present."""


def serious_faults(page: Page) -> list[str]:
    answer: dict[str, Any] = Axe().run(page).response
    return [
        f"{fault['id']}: {node['target']} {node['html'][:100]}"
        for fault in answer["violations"]
        if fault["impact"] in {"serious", "critical"}
        for node in fault["nodes"]
        if not any(selector in str(node["target"]) for selector in GRADIOS_OWN)
    ]


def sample_with_hole(visitor: Visitor) -> None:
    visitor.page.click('[data-sample="china"]')
    visitor.page.wait_for_selector('.mp[data-state="ready"]:not([data-busy="on"])')
    visitor.drag((280, 250), (320, 300))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_state_of_the_page(visit: OpenPage, demo_url: str, theme: str) -> None:
    visitor = visit(reduced_motion="reduce")
    page = visitor.page
    page.goto(f"{demo_url}?__theme={theme}")
    page.wait_for_selector(".kp details[data-method]")
    assert serious_faults(page) == []
    sample_with_hole(visitor)
    visitor.choose_methods("Telea", "Prior method")
    page.click('.kp details[data-method="prior"] summary')
    page.click(".kp-sight summary")
    page.click("#demo-settings button >> nth=0")
    page.click("[data-do=look]")
    page.wait_for_selector(".kp-looks img >> nth=1")
    page.click(".mp-menu summary")
    assert serious_faults(page) == []
    page.click('[data-do="openExtend"]')
    assert serious_faults(page) == []
    page.keyboard.press("Escape")
    page.click("#demo-run")
    page.wait_for_selector(".rv-strip button >> nth=1")
    page.wait_for_selector('.rv[data-state="shown"]:not([data-busy="on"])')
    assert serious_faults(page) == []
    page.click('.rv [data-do="grid"]')
    page.wait_for_selector(".rv-pane >> nth=1")
    assert serious_faults(page) == []


def focused(page: Page) -> str:
    return str(
        page.evaluate("""() => { const node = document.activeElement;
            return node.dataset.do || node.dataset.tool || node.id || node.className || node.tagName; }""")
    )


def tab_to(page: Page, name: str) -> None:
    for _ in range(80):
        page.keyboard.press("Tab")
        if name in focused(page):
            return
    pytest.fail(f"Tab does not reach {name}.")


def test_tab_alone_leads_from_the_sample_over_the_tools_to_the_download(visit: OpenPage) -> None:
    visitor = visit(reduced_motion="reduce")
    page = visitor.page
    page.focus('[data-sample="chelsea"]')
    page.keyboard.press("Enter")
    page.wait_for_selector('.mp[data-state="ready"]:not([data-busy="on"])')
    page.focus('[data-tool="brush"]')
    for stop in ("eraser", "rectangle", "lasso", "select", "pan", "mp-stage"):
        tab_to(page, stop)
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    assert visitor.hole().any()
    tab_to(page, "demo-run")
    page.keyboard.press("Enter")
    page.wait_for_selector('.rv[data-state="shown"]:not([data-busy="on"])')
    for stop in ("rv-range", "hold", "changes", "reuse", "jpeg", "rv-main"):
        tab_to(page, stop)


def test_a_dialog_keeps_the_keyboard_and_gives_it_back(visit: OpenPage) -> None:
    visitor = visit()
    sample_with_hole(visitor)
    page = visitor.page
    visitor.menu("openExtend")
    seen: set[str] = set()
    for _ in range(7):
        page.keyboard.press("Tab")
        seen.add(str(page.evaluate("() => !!document.activeElement.closest('.mp-extend')")))
    assert seen == {"True"}
    page.keyboard.press("Escape")
    assert not page.locator(".mp-extend").is_visible()
    assert "mp-stage" in focused(page)


def test_the_page_fits_a_phone(visit: OpenPage) -> None:
    visitor = visit(viewport={"width": 390, "height": 844}, device_scale_factor=2, has_touch=True, is_mobile=True)
    page = visitor.page
    sample_with_hole(visitor)
    wide = "() => document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(wide)
    visitor.tool("select")
    assert page.evaluate(wide)
    visitor.choose_methods("Telea")
    visitor.run()
    assert page.evaluate(wide)
    for selector in (".mp-bar", ".mp-stage", ".rv-stage", ".rv-bar", ".kp"):
        box = page.locator(selector).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
