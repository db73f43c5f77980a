"""Whether weights are here, what to do when not, and fetching them from hosts that answer, lie or are silent."""

import hashlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import constants

from asuka_infer.catalog import METHODS
from asuka_infer.weight_sources import (
    FetchError,
    WeightsNotHereError,
    WeightSource,
    fetch,
    locate,
    locate_file,
    what_is_missing,
)

WEIGHTED = [key for key, method in METHODS.items() if method.sources]
PUBLIC = WeightSource("toy", ("model.safetensors|*.pt",), "a toy's weights", repo="maker/toy", size_mb=1200)


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASUKA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("ASUKA_NON_COMMERCIAL", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def put(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def in_hub_cache(tmp_path: Path, name: str = "model.safetensors", commit: str = "abc") -> Path:
    repo = tmp_path / "hub" / "models--maker--toy"
    put(repo / "refs" / "main", commit)
    return put(repo / "snapshots" / commit / name)


@pytest.mark.parametrize("key", WEIGHTED)
def test_without_weights_a_method_says_in_one_sentence_what_makes_it_ready_and_loading_says_the_same(key: str) -> None:
    begun = time.perf_counter()
    readiness = METHODS[key].readiness()
    assert not readiness.ready
    assert readiness.how_to.endswith(".")
    with pytest.raises(WeightsNotHereError) as caught:
        METHODS[key].load()
    assert str(caught.value) == f"{key} cannot run here: {readiness.how_to}"
    assert f"$ASUKA_WEIGHTS/{METHODS[key].sources[0].name}" in str(caught.value)
    assert time.perf_counter() - begun < 2, "nothing is loaded and nobody is asked"


@pytest.mark.parametrize("key", WEIGHTED)
def test_every_entry_states_its_size_memory_and_licence(key: str) -> None:
    method = METHODS[key]
    assert method.needs.memory_mb > 0
    assert method.licence
    fetchable = any(source.repo or source.url for source in method.sources)
    assert (method.needs.download_mb > 0) == fetchable
    assert fetchable or all(source.by_hand for source in method.sources)


def test_mat_is_off_until_its_user_says_that_the_use_is_non_commercial(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ASUKA_NON_COMMERCIAL=1" in METHODS["mat"].readiness().how_to
    monkeypatch.setenv("ASUKA_NON_COMMERCIAL", "1")
    assert "ASUKA_NON_COMMERCIAL" not in METHODS["mat"].readiness().how_to


def test_a_local_folder_comes_before_the_hubs_cache(tmp_path: Path) -> None:
    assert locate(PUBLIC) is None
    cached = in_hub_cache(tmp_path)
    assert locate(PUBLIC) == cached.parent
    local = put(PUBLIC.local / "weights.pt")
    assert locate(PUBLIC) == local.parent
    assert what_is_missing("toy", [PUBLIC]) == ""


def test_the_hubs_main_revision_comes_before_older_ones(tmp_path: Path) -> None:
    in_hub_cache(tmp_path, commit="aaa")
    newest = in_hub_cache(tmp_path, commit="bbb")
    in_hub_cache(tmp_path, commit="ccc")
    (tmp_path / "hub" / "models--maker--toy" / "refs" / "main").write_text("bbb")
    assert locate(PUBLIC) == newest.parent


def test_a_download_that_broke_off_does_not_count(tmp_path: Path) -> None:
    file = in_hub_cache(tmp_path)
    file.unlink()
    file.symlink_to(tmp_path / "hub" / "blobs" / "never-arrived")
    assert locate(PUBLIC) is None


def test_shards_count_only_when_the_index_has_all_of_them() -> None:
    sharded = replace(PUBLIC, needed=("unet/*.safetensors",))
    index = {"weight_map": {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}}
    put(sharded.local / "unet" / "m.safetensors.index.json", json.dumps(index))
    put(sharded.local / "unet" / "m-00001-of-00002.safetensors")
    assert locate(sharded) is None
    put(sharded.local / "unet" / "m-00002-of-00002.safetensors")
    assert locate(sharded) == sharded.local


def test_one_file_is_found_and_two_are_not_guessed_between() -> None:
    with pytest.raises(WeightsNotHereError, match="holds none"):
        locate_file(PUBLIC)
    first = put(PUBLIC.local / "a.pt")
    assert locate_file(PUBLIC) == first
    put(PUBLIC.local / "b.pt")
    with pytest.raises(WeightsNotHereError, match=r"holds a\.pt, b\.pt; keep one"):
        locate_file(PUBLIC)


def test_the_sentence_names_package_command_size_terms_and_place() -> None:
    gated = replace(PUBLIC, gated=True)
    assert what_is_missing("toy", [gated], ["no_such_package_x"]) == (
        "install what it runs on (`pip install no-such-package-x`) and run `python -m asuka_infer fetch toy` (1.2 GB) "
        "after accepting the licence at https://huggingface.co/maker/toy, or put a toy's weights in "
        "$ASUKA_WEIGHTS/toy."
    )


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("key", WEIGHTED)
def test_with_no_host_reachable_fetching_fails_at_once_and_names_a_way_without(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    for source in METHODS[key].sources:
        source = replace(source, url=f"{address}/{source.name}.pt" if source.url else "")  # noqa: PLW2901 - the same
        begun = time.perf_counter()
        with pytest.raises(FetchError, match=source.name) as caught:
            fetch(source)
        assert time.perf_counter() - begun < 5
        assert str(source.local) in str(caught.value)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A host with one file, `toy.pt`, that says "weights"."""
    put(tmp_path / "served" / "toy.pt", "weights")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/toy.pt"
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_checked_and_put_where_it_is_looked_for(served: str) -> None:
    source = replace(
        PUBLIC,
        repo="",
        url=served,
        md5=hashlib.md5(b"weights", usedforsecurity=False).hexdigest(),
        sha256=hashlib.sha256(b"weights").hexdigest(),
    )
    assert fetch(source) == source.local
    assert locate_file(source).read_text() == "weights"
    assert fetch(source) == source.local


@pytest.mark.parametrize(("named", "length"), [("md5", 32), ("sha256", 64)])
def test_another_file_than_expected_is_refused_and_leaves_nothing(served: str, named: str, length: int) -> None:
    right = {"md5": hashlib.md5(b"weights", usedforsecurity=False), "sha256": hashlib.sha256(b"weights")}
    digests = {name: digest.hexdigest() for name, digest in right.items()} | {named: "0" * length}
    source = replace(PUBLIC, repo="", url=served, **digests)
    with pytest.raises(FetchError, match="expected 000"):
        fetch(source)
    assert list(source.local.iterdir()) == []


def test_every_single_file_of_the_catalog_is_pinned_by_sha256() -> None:
    files = [source for method in METHODS.values() for source in method.sources if source.url]
    assert files
    assert all(len(source.sha256) == 64 for source in files)
