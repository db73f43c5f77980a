"""The endpoint for programs, called with Gradio's own client and with plain HTTP, beside the command line."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from asuka_infer.images import pixel_sha256, read_image
from asuka_infer.run_record import RunRecord
from tests.demo.painting import photo, save
from tests.serving import PATIENCE_S, POLL_S, ROOT, free_port, served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo that is turned by its EXIF, and a hole for it."""
    path = tmp_path_factory.mktemp("pictures")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(120, 90)).save(path / "photo.png", exif=exif.tobytes())
    hole = np.zeros((120, 90), np.uint8)
    hole[40:70, 30:60] = 255
    save(hole, path / "hole.png")
    return path


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, log = free_port(), tmp_path_factory.mktemp("log") / "endpoint.txt"
    temporary = {"GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("uploads"))}
    with served(["tests/demo/serve_endpoint.py", str(port), "3600", "86400"], port, log, temporary) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def ask(client: Client, folder: Path, **named: Any) -> tuple[Path, dict[str, Any]]:
    asked: dict[str, Any] = {
        "photo": handle_file(folder / "photo.png"), "mask": handle_file(folder / "hole.png"), "method": "telea",
        "seed": 5, **named,
    }  # fmt: skip
    path, record = client.predict(api_name="/inpaint", **asked)
    return Path(path), record


def on_the_command_line(folder: Path, *words: str) -> Path:
    out = folder / "cli.png"
    named = ["--image", str(folder / "photo.png"), "--hole", str(folder / "hole.png"), "--out", str(out)]
    command = [sys.executable, "-m", "asuka_infer", "inpaint", "--method", "telea", "--seed", "5", *named, *words]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


def test_the_pixels_are_those_of_the_command_line_bit_for_bit(client: Client, folder: Path) -> None:
    path, record = ask(client, folder, settings={"radius": 7}, context=1.0, compositing="seamless")
    words = ("--set", "radius=7", "--context", "1.0", "--compositing", "seamless")
    here, there = read_image(path), read_image(on_the_command_line(folder, *words))
    assert np.array_equal(here.pixels, there.pixels)
    assert record["result_sha256"] == pixel_sha256(there.pixels)
    with Image.open(path) as mine, Image.open(folder / "cli.png") as theirs:
        record_here, record_there = (
            RunRecord.from_json(text) for text in (mine.info["asuka:run_record"], theirs.info["asuka_infer"])
        )
    assert record_here.settings == record_there.settings
    assert record_here.framing == record_there.framing


def test_it_says_what_it_changed_and_how_it_was_made(client: Client, folder: Path) -> None:
    path, record = ask(client, folder)
    assert path.suffix == ".png"
    assert (record["method"], record["seed"], record["generated"]) == ("telea", 5, True)
    assert (record["changed_outside"], record["changed_by_format"]) == (0, 0)
    path, record = ask(client, folder, file_format="jpeg")
    assert path.suffix == ".jpg"
    assert record["changed_by_format"] > 0


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"method": "tela"}, "did you mean telea"),
        ({"method": "sd15"}, "cannot run here yet"),
        ({"seed": -1}, "The seed is -1"),
        ({"settings": {"radios": 3}}, "did you mean radius"),
        ({"settings": {"radius": "wide"}}, "radius = 'wide' is not possible"),
        ({"settings": [1]}, "give an object of names and values"),
        ({"compositing": "blurred"}, "give exact or seamless"),
        ({"file_format": "gif"}, "give png or jpeg or webp"),
        ({"context": -1}, "The context is -1"),
        ({"mask": None}, "There is no mask"),
        ({"photo": None}, "There is no photo yet"),
    ],
)
def test_what_it_cannot_do_is_said_in_words(client: Client, folder: Path, named: dict[str, Any], words: str) -> None:
    with pytest.raises(AppError, match=words):
        ask(client, folder, **named)


def test_a_mask_of_another_size_and_a_file_that_is_no_photo_are_explained(client: Client, folder: Path) -> None:
    small = save(np.eye(9, dtype=np.uint8) * 255, folder / "small.png")
    (folder / "words.png").write_text("no picture")
    with pytest.raises(AppError, match="9x9"):
        ask(client, folder, mask=handle_file(small))
    with pytest.raises(AppError, match="no readable picture"):
        ask(client, folder, photo=handle_file(folder / "words.png"))


def test_it_is_the_only_thing_that_programs_may_call(client: Client) -> None:
    offered: Any = client.view_api(return_format="dict", print_info=False)
    assert list(offered["named_endpoints"]) == ["/inpaint"]
    assert offered["unnamed_endpoints"] == {}


def test_every_parameter_is_documented(client: Client) -> None:
    offered: Any = client.view_api(return_format="dict", print_info=False)
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for parameter in offered["named_endpoints"]["/inpaint"]["parameters"]:
        assert f"`{parameter['parameter_name']}`" in text


def test_plain_http_gives_the_same_pixels(url: str, client: Client, folder: Path) -> None:
    photo_path, mask_path = (upload(url, folder / name) for name in ("photo.png", "hole.png"))
    files = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in (photo_path, mask_path)]
    data = [*files, "telea", 5, {}, 0.5, "exact", True, "png"]
    event = json.loads(fetch(f"{url}gradio_api/call/inpaint", json.dumps({"data": data}).encode(), "application/json"))
    stream = fetch(f"{url}gradio_api/call/inpaint/{event['event_id']}").decode()
    last = json.loads(next(line for line in stream.splitlines()[::-1] if line.startswith("data: "))[6:])
    assert np.array_equal(read_image(fetch(last[0]["url"])).pixels, read_image(ask(client, folder)[0]).pixels)


def test_a_path_that_was_never_uploaded_is_not_read(url: str) -> None:
    forged = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}
    data = [forged, forged, "telea", 5, {}, 0.5, "exact", True, "png"]
    event = json.loads(fetch(f"{url}gradio_api/call/inpaint", json.dumps({"data": data}).encode(), "application/json"))
    stream = fetch(f"{url}gradio_api/call/inpaint/{event['event_id']}").decode()
    assert "event: error" in stream
    assert "event: complete" not in stream


def test_uploads_are_deleted_after_their_time(tmp_path: Path, folder: Path) -> None:
    port, uploads = free_port(), tmp_path / "uploads"
    command = ["tests/demo/serve_endpoint.py", str(port), "1", "1"]
    with served(command, port, tmp_path / "log.txt", {"GRADIO_TEMP_DIR": str(uploads)}) as url:
        path = Path(upload(url, folder / "photo.png"))
        assert path.is_relative_to(uploads)
        for _ in range(int(PATIENCE_S / POLL_S)):
            if not path.exists():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                subprocess.run(["sleep", "60"], timeout=POLL_S, check=False)
        assert not path.exists()


def upload(url: str, path: Path) -> str:
    """As any HTTP client does it; returns where the server put it."""
    head = f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'.encode()
    body = head + path.read_bytes() + b"\r\n--edge--\r\n"
    return json.loads(fetch(f"{url}gradio_api/upload", body, "multipart/form-data; boundary=edge"))[0]


def fetch(url: str, body: bytes | None = None, kind: str = "") -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": kind} if kind else {})  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310 - same
        return answer.read()
