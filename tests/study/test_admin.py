"""The researcher's page: who may come in and do what, what nobody may see yet, and that it works in a browser."""

import io
import json
import threading
import zipfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect

from db.engine import Database
from study.admin import AdminError, Admission, Role, Surroundings, admin_router
from study.api import router
from study.backup import Backups
from study.verification import verify
from tests.serving import free_port
from tests.study.stage import METHODS, Clock, Folders, Participant, definition

PASSWORDS: Mapping[Role, str] = {
    "owner": "the owner's own word",
    "operator": "the operator's word",
    "viewer": "the viewer's own word",
}


@dataclass
class Room:
    """The page with its server."""

    client: TestClient
    database: Database
    clock: Clock
    csrf: str = ""

    def enter(self, role: Role) -> "Room":
        reply = self.client.post("/study/admin/api/login", json={"password": PASSWORDS[role]})
        assert reply.status_code == 200, reply.text
        self.csrf = reply.json()["csrf"]
        return self

    def get(self, path: str) -> Any:
        return self.client.get(f"/study/admin/api{path}")

    def post(self, path: str, body: Any = None) -> Any:
        headers = {"X-CSRF-Token": self.csrf}
        return self.client.post(f"/study/admin/api{path}", json=body or {}, headers=headers)

    def do(self, action: str) -> Any:
        return self.post(f"/studies/trial-run/do/{action}")


@pytest.fixture
def room(tmp_path: Path, launched_file: Path, folders: Folders) -> Generator[Room]:
    (tmp_path / "live.sqlite").write_bytes(launched_file.read_bytes())
    url = f"sqlite:///{tmp_path / 'live.sqlite'}"
    clock = Clock()
    with Database.open(url) as database:
        around = Surroundings(
            backups=Backups(url, tmp_path / "backups"),
            studies_dir=folders.images.parent,
            planning={"power": lambda slug: {"title": "Power", "columns": ["n"], "rows": [[slug, 96]], "note": ""}},
            outcomes={"rates": lambda slug: {"title": "Rates", "columns": ["%"], "rows": [[slug, 50]], "note": ""}},
        )
        app = FastAPI(openapi_url=None)
        app.include_router(admin_router(database, Admission(PASSWORDS), around, clock=clock))
        app.include_router(router(database, clock=clock))
        with TestClient(app) as client:
            yield Room(client, database, clock)


def test_without_a_password_there_is_no_page_and_weak_ones_are_refused(room: Room) -> None:
    with pytest.raises(AdminError, match="needs a password"):
        admin_router(room.database, Admission({}))
    with pytest.raises(AdminError, match="has 5 characters"):
        Admission({"owner": "short"})
    with pytest.raises(AdminError, match="same password"):
        Admission({"owner": "a long password", "viewer": "a long password"})
    bare = FastAPI(openapi_url=None)
    bare.include_router(router(room.database))
    assert TestClient(bare).get("/study/admin").status_code == 404


def test_nothing_is_told_to_whoever_is_not_signed_in(room: Room) -> None:
    assert room.client.get("/study/admin").status_code == 200
    for path in (
        "/me",
        "/studies",
        "/studies/trial-run",
        "/studies/trial-run/results",
        "/studies/trial-run/export.zip",
    ):
        assert room.get(path).status_code == 401
    assert room.do("close").status_code == 401
    room.client.cookies.set("asuka_admin", "owner.9999999999.aa.bb", path="/study/admin")
    assert room.get("/me").status_code == 401


def test_a_forged_role_and_an_old_cookie_are_refused(room: Room) -> None:
    room.enter("viewer")
    cookie = room.client.cookies["asuka_admin"]
    room.client.cookies.clear()
    room.client.cookies.set("asuka_admin", cookie.replace("viewer", "owner"), path="/study/admin")
    assert room.get("/me").status_code == 401
    room.client.cookies.clear()
    room.client.cookies.set("asuka_admin", cookie, path="/study/admin")
    assert room.get("/me").json()["role"] == "viewer"
    room.clock.pass_seconds(13 * 3600)
    assert room.get("/me").status_code == 401


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(room: Room) -> None:
    reply = room.client.post("/study/admin/api/login", json={"password": PASSWORDS["owner"]})
    said = reply.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert "path=/study/admin" in said
    secure = room.client.post(
        "/study/admin/api/login", json={"password": PASSWORDS["owner"]}, headers={"X-Forwarded-Proto": "https"}
    )
    assert "secure" in secure.headers["set-cookie"].lower()


def test_a_change_needs_the_token_that_only_the_page_has(room: Room) -> None:
    room.enter("owner")
    room.csrf = "guessed"
    assert room.do("pause").status_code == 403
    assert room.get("/studies/trial-run").json()["status"]["status"] == "live"


def test_wrong_passwords_are_counted_and_forgotten_after_a_minute(room: Room) -> None:
    for _ in range(5):
        assert room.client.post("/study/admin/api/login", json={"password": "guess"}).status_code == 401
    refused = room.client.post("/study/admin/api/login", json={"password": PASSWORDS["owner"]})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    room.clock.pass_seconds(61)
    room.enter("owner")


def test_each_role_may_do_what_its_role_is(room: Room) -> None:
    asked: tuple[tuple[Role, str, int], ...] = (
        ("viewer", "/studies/trial-run/results", 200),
        ("viewer", "/studies/trial-run/quality", 403),
        ("viewer", "/studies/trial-run/export.zip", 403),
        ("operator", "/studies/trial-run/results", 403),
        ("operator", "/studies/trial-run/outcomes/rates", 403),
        ("operator", "/studies/trial-run/quality", 200),
        ("operator", "/studies/trial-run/planning/power", 200),
        ("operator", "/studies/trial-run/preview", 200),
        ("owner", "/studies/trial-run/outcomes/rates", 403),
        ("owner", "/studies/trial-run/export.zip", 403),
    )
    for role, path, status in asked:
        assert room.enter(role).get(path).status_code == status, (role, path)
    assert room.enter("viewer").do("pause").status_code == 403
    assert room.enter("operator").do("close").status_code == 403
    assert room.enter("operator").do("pause").json()["status"] == "paused"


def test_a_study_runs_from_draft_to_unblinded_and_every_deed_is_written_down(room: Room) -> None:
    room.enter("owner")
    for action, status in (("pause", "paused"), ("launch", "live"), ("drain", "draining"), ("close", "closed")):
        assert room.do(action).json()["status"] == status
    assert room.do("unblind").json()["unblinded"] is True
    assert room.do("launch").status_code == 409
    assert room.do("burn").status_code == 404
    trail = room.get("/studies/trial-run").json()
    assert [(each["action"], each["actor"]) for each in trail["audit"]] == [
        *((deed, "page:owner") for deed in ("unblind", "close", "drain", "launch", "pause")),
        ("launch", "program"),
    ]
    assert trail["backup"]["snapshots"] == 5
    assert verify(room.database).audit_rows == 6


def test_results_wear_aliases_from_closing_to_unblinding(room: Room) -> None:
    Participant(room.client).start().answer_all()
    room.enter("owner")
    hidden = room.get("/studies/trial-run/results").json()
    assert (hidden["visible"], hidden["pairs"], hidden["votes"]) == (False, [], 12)
    room.do("close")
    aliased = room.get("/studies/trial-run/results")
    assert sum(pair["first_chosen"] + pair["second_chosen"] for pair in aliased.json()["pairs"]) == 12
    assert not any(method in aliased.text for method in METHODS)
    assert room.get("/studies/trial-run/outcomes/rates").status_code == 403
    room.do("unblind")
    seen = room.get("/studies/trial-run/results")
    assert all(method in seen.text for method in METHODS)
    assert room.get("/studies/trial-run/outcomes/rates").json()["rows"] == [["trial-run", 50]]


def test_progress_and_cells_name_no_method(room: Room) -> None:
    Participant(room.client).start().answer_all()
    found = room.enter("viewer").get("/studies/trial-run")
    assert not any(method in found.text for method in METHODS)
    cells = found.json()["cells"]
    assert sum(map(sum, cells["valid"])) == 6
    assert (len(cells["images"]), len(cells["columns"])) == (8, 6)
    assert found.json()["status"]["sessions"] == {"completed": 1}


def test_the_export_is_the_same_file_twice(room: Room) -> None:
    Participant(room.client).start().answer_all()
    room.enter("owner").do("close")
    one, two = room.get("/studies/trial-run/export.zip"), room.get("/studies/trial-run/export.zip")
    assert one.content == two.content
    with zipfile.ZipFile(io.BytesIO(one.content)) as archive:
        assert json.loads(archive.read("manifest.json"))["blind"] is True


def test_a_study_is_made_from_a_definition_and_folders_below_the_one_allowed(room: Room, folders: Folders) -> None:
    room.enter("owner")
    text = definition(study="second").canonical
    checked = room.post("/definition", {"definition": text}).json()
    assert (checked["study"], checked["sha256"]) == ("second", definition(study="second").sha256)
    assert room.post("/definition", {"definition": "study: [}"}).status_code == 409
    body = {"definition": text, "images": "images", "holes": "holes", "results": "results"}
    for outside in ("..", "/etc", "nowhere"):
        refused = room.post("/studies", body | {"images": outside})
        assert (refused.status_code, "no folder" in refused.json()["error"]) == (400, True)
    assert room.post("/studies", body).json()["images"] == len(list(folders.images.iterdir()))
    assert [study["slug"] for study in room.get("/studies").json()] == ["second", "trial-run"]
    assert room.post("/studies/second/do/launch").json()["status"] == "live"


def test_decisions_about_quality_say_who_made_them_need_a_reason_and_are_undone(room: Room) -> None:
    Participant(room.client).start().answer_all()
    room.enter("operator")
    path = "/studies/trial-run/quality"
    (entry,) = room.get(path).json()
    assert (entry["use"], entry["exclusions"]) == (True, [])
    session = entry["session"]
    assert room.post(path, {"session": session, "reason": ""}).status_code == 400
    assert room.post(path, {"session": session, "exclusion": 3, "reason": "both"}).status_code == 400
    assert room.post(path, {"session": "nobody", "reason": "unknown"}).status_code == 404
    made = room.post(path, {"session": session, "reason": "phone rang"})
    assert made.status_code == 200
    (entry,) = room.get(path).json()
    assert (entry["use"], [each["id"] for each in entry["exclusions"]]) == (False, [made.json()["id"]])
    assert room.get("/studies/trial-run").json()["flow"]["used"] == 0
    assert room.post(path, {"exclusion": made.json()["id"], "reason": "was right"}).status_code == 200
    found = room.get("/studies/trial-run").json()
    assert found["flow"]["used"] == 1
    assert [each["actor"] for each in found["audit"][:2]] == ["page:operator", "page:operator"]


def test_who_was_asked_nothing_comes_last_with_nothing_to_decide(room: Room) -> None:
    Participant(room.client).join()
    Participant(room.client).start().answer_all()
    entries = room.enter("operator").get("/studies/trial-run/quality").json()
    assert [(each["state"], each["accept"], each["use"], each["broken"]) for each in entries] == [
        ("completed", True, True, []),
        ("created", None, None, []),
    ]


def test_a_session_is_erased_and_an_oversized_body_refused(room: Room) -> None:
    Participant(room.client).start().answer_all()
    room.enter("owner")
    assert room.post("/studies/trial-run/erase", {"session": "nobody"}).status_code == 404
    assert room.post("/definition", {"definition": "x" * 1_000_001}).status_code == 413
    assert room.post("/backup").json()["sha256"]


# ------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture
def address(room: Room) -> Generator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(room.client.app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(browser: Browser) -> Generator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.mark.browser
def test_the_owner_watches_closes_and_unblinds_in_the_browser(room: Room, address: str, page: Page) -> None:
    Participant(room.client).start().answer_all()
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"{address}/study/admin")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("status")).to_have_text("This is no password here.")
    assert serious(page) == []
    page.get_by_label("Password").fill(PASSWORDS["owner"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("cell", name="live")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("link", name="trial-run").click()
    expect(page.get_by_role("heading", name="trial-run, version 1")).to_be_visible()
    expect(page.locator(".cells td")).to_have_count(48)
    expect(page.locator("#results")).to_contain_text("shown when it is closed and unblinded")
    assert serious(page) == []
    page.get_by_role("button", name="Close for good").click()
    expect(page.locator("#results")).to_contain_text("M1")
    page.get_by_role("button", name="Unblind for good").click()
    expect(page.locator("#results")).to_contain_text(METHODS[0])
    expect(page.locator("#trail")).to_contain_text("unblind")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [violation["id"] for violation in found if violation["impact"] in {"serious", "critical"}]
