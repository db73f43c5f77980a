"""Everything wrong that a visitor can bring: the page says what happened and the next picture works."""

import struct
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.demo.conftest import OpenPage
from tests.demo.painting import Visitor, photo, save

pytestmark = pytest.mark.browser


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(path: Path) -> Path:
    """A PNG of 200 megapixels in 200 kB."""
    width, height = 20_000, 10_000
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    assert path.stat().st_size < 1_000_000
    return path


def said(visitor: Visitor, words: str) -> None:
    visitor.page.wait_for_function(
        "(words) => document.querySelector('.mp-message').textContent.includes(words)", arg=words
    )
    assert not visitor.page.evaluate("() => document.querySelector('.mp').dataset.busy")


def test_a_picture_that_would_fill_the_memory_is_refused_and_the_next_one_opens(
    visit: OpenPage, tmp_path: Path
) -> None:
    visitor = visit()
    visitor.page.set_input_files(".mp-file", str(bomb(tmp_path / "bomb.png")))
    said(visitor, "200")
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.page.set_input_files(".mp-mask-file", str(tmp_path / "bomb.png"))
    said(visitor, "200")
    visitor.drag((100, 60), (180, 120))
    visitor.choose_methods("Telea")
    visitor.run()


@pytest.mark.parametrize(("level", "words"), [(0, "marks nothing"), (255, "marks every pixel")])
def test_a_mask_of_one_level_is_explained_and_one_can_still_paint(
    visit: OpenPage, tmp_path: Path, level: int, words: str
) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    flat = save(np.full((200, 300), level, np.uint8), tmp_path / "flat.png")
    visitor.page.set_input_files(".mp-mask-file", str(flat))
    said(visitor, words)
    visitor.drag((100, 60), (180, 120))
    assert visitor.hole().any()


def test_a_mask_that_is_no_picture_is_explained(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.drag((100, 60), (180, 120))
    painted = visitor.hole()
    (tmp_path / "letter.png").write_text("Dear reader")
    visitor.page.set_input_files(".mp-mask-file", str(tmp_path / "letter.png"))
    said(visitor, "letter.png")
    assert np.array_equal(visitor.hole(), painted)


def test_a_chinese_visitor_reads_in_chinese_what_is_wrong_and_what_was_done(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit(locale="zh-CN")
    (tmp_path / "letter.png").write_text("Dear reader")
    visitor.page.set_input_files(".mp-file", str(tmp_path / "letter.png"))
    said(visitor, "letter.png 不是可读取的图片")
    visitor.open(save(np.arange(60_000, dtype=np.uint16).reshape(200, 300), tmp_path / "deep.png"))
    assert "已转换为 8 位" in visitor.page.inner_text(".mp-info")
    visitor.page.wait_for_selector("#demo-about >> text=用最相似的已知块")
    visitor.page.click("#demo-methods .token-remove")
    visitor.drag((100, 60), (180, 120))
    visitor.page.click("#demo-run")
    visitor.page.wait_for_selector(".rv-message.shown")
    assert visitor.page.inner_text(".rv-message").startswith("选择了 0 种方法")


def test_losing_the_network_in_the_middle_of_a_run_is_said_and_nothing_painted_is_lost(
    visit: OpenPage, tmp_path: Path
) -> None:
    visitor = visit()
    page = visitor.page
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.drag((100, 60), (180, 120))
    painted = visitor.hole()
    page.wait_for_function("() => JSON.parse(sessionStorage.getItem('asuka-demo-painter') || '{}').hole")
    visitor.choose_methods("Slow method")
    page.click("#demo-run")
    page.wait_for_function("() => /step \\d+ of/.test(document.querySelector('.rv-doing').textContent)")
    page.context.set_offline(True)
    page.click('.rv [data-do="cancel"]')
    page.wait_for_selector("text=/connection to the server was lost/i")
    with page.expect_navigation():  # Gradio opens the page again once the server answers
        page.context.set_offline(False)
    page.wait_for_selector('.mp[data-state="ready"]:not([data-busy="on"])')
    assert np.array_equal(visitor.hole(), painted)
    visitor.choose_methods("Telea")
    visitor.run()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:  # noqa: S310 - our own http address
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_what_one_visitor_uploads_cannot_be_found_by_another(
    visit: OpenPage, uploads: Path, demo_url: str, tmp_path: Path
) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200, seed=99), tmp_path / "secret-name.png"))
    visitor.choose_methods("Telea")
    visitor.drag((100, 60), (180, 120))
    visitor.run()
    kept = [path for path in uploads.rglob("*") if path.name == "secret-name.png"]
    assert len(kept) == 1
    assert len(kept[0].parent.name) >= 32  # nobody guesses the folder's name
    guesses = [
        str(uploads), f"{uploads}/", str(kept[0].parent), f"{uploads}/secret-name.png", f"{uploads}/../", "/etc/passwd",
        "/proc/self/environ", "demo/engine.py", str(Path("demo/engine.py").resolve()), "../../../../etc/passwd",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd", f"{uploads}/%2e%2e/%2e%2e/etc/passwd", ".", "",
    ]  # fmt: skip
    found = [guess for guess in guesses if status(f"{demo_url}gradio_api/file={guess}") == 200]
    assert found == []


def test_a_result_comes_as_jpeg_and_webp_too(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.choose_methods("Telea")
    visitor.drag((100, 60), (180, 120))
    visitor.run()
    png = visitor.download(tmp_path)
    for form, suffix, words in (("webp", "webp", "every pixel"), ("jpeg", "jpg", "differently")):
        with visitor.page.expect_download() as waiting:
            visitor.page.click(f'.rv [data-do="{form}"]')
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        assert path.name == f"photo-telea-seed0.{suffix}"
        visitor.page.wait_for_function(
            "(words) => document.querySelector('.rv-message').textContent.includes(words)", arg=words
        )
        with Image.open(path) as image, Image.open(png) as original:
            assert image.format == form.upper()
            same = np.array_equal(np.array(image.convert("RGB")), np.array(original.convert("RGB")))
            assert same == (form == "webp")
