"""Methods kept loaded within a budget: who goes first, who may not go, what counts once."""

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from asuka_infer.baselines.telea import telea
from asuka_infer.catalog import Method, Needs, UnknownMethodError
from asuka_infer.residency import MEMORY_VARIABLE, Residency, ResidencyError, Room, room_here


class Loads:
    """Methods of given sizes that count how often they are loaded."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.alive: dict[str, weakref.ref[Any]] = {}

    def method(self, key: str, memory_mb: int, shares: str = "") -> Method:
        def load() -> Any:
            self.order.append(key)
            loaded = telea()
            self.alive[key] = weakref.ref(loaded)
            return loaded

        return Method(key, key, "A toy.", "-", "-", load, Needs(memory_mb=memory_mb), shares=shares)


@pytest.fixture
def loads() -> Iterator[Loads]:
    yield Loads()
    gc.collect()


def residency(loads: Loads, budget: int, **sizes: int) -> Residency:
    return Residency(budget, {key: loads.method(key, size) for key, size in sizes.items()})


def use(home: Residency, *keys: str) -> None:
    for key in keys:
        with home.borrow(key):
            pass


def test_a_method_is_loaded_once_and_stays() -> None:
    loads = Loads()
    home = residency(loads, 1000, a=400, b=400)
    use(home, "a", "b", "a", "b")
    assert loads.order == ["a", "b"]
    assert home.memory_mb == 800


def test_what_was_used_longest_ago_makes_room_and_is_really_gone(loads: Loads) -> None:
    home = residency(loads, 1000, a=400, b=400, c=400)
    use(home, "a", "b", "a", "c")
    assert home.resident == ("a", "c")
    assert loads.alive["b"]() is None
    assert loads.alive["a"]() is not None
    use(home, "b")
    assert home.resident == ("c", "b")


def test_the_budget_is_never_exceeded_whatever_is_asked_for(loads: Loads) -> None:
    sizes = {"a": 300, "b": 500, "c": 700, "d": 150, "e": 990}
    home = residency(loads, 1000, **sizes)
    for key in "abcdeadbecdabeedc":
        with home.borrow(key):
            assert sum(sizes[name] for name in home.resident) == home.memory_mb <= 1000
            assert home.resident[-1] == key


def test_what_is_at_work_is_not_put_out(loads: Loads) -> None:
    home = residency(loads, 1000, a=600, b=300, c=600)
    with home.borrow("a"):
        use(home, "b")
        with pytest.raises(ResidencyError, match="c needs 600 MB, but a are at work"), home.borrow("c"):
            pass
        home.put_out()
        assert home.resident == ("a",)
    use(home, "c")
    assert home.resident == ("c",)


def test_what_can_never_fit_is_refused_before_anything_is_put_out(loads: Loads) -> None:
    home = residency(loads, 1000, a=600, giant=1001)
    use(home, "a")
    with pytest.raises(ResidencyError, match="giant needs 1001 MB but the budget for loaded methods is 1000 MB"):
        use(home, "giant")
    assert home.resident == ("a",)


def test_shared_weights_count_once_as_the_largest(loads: Loads) -> None:
    methods = {key: loads.method(key, size, "backbone") for key, size in {"a": 600, "b": 700, "c": 500}.items()}
    home = Residency(1000, methods)
    use(home, "a", "b", "c")
    assert home.resident == ("a", "b", "c")
    assert home.memory_mb == 700


def test_a_loader_that_fails_loses_nothing_and_may_try_again(loads: Loads) -> None:
    def fail() -> Any:
        raise RuntimeError("no weights")

    broken = Method("broken", "-", "-", "-", "-", fail, Needs(memory_mb=200))
    home = Residency(1000, {"a": loads.method("a", 600), "broken": broken})
    use(home, "a")
    with pytest.raises(RuntimeError, match="no weights"):
        use(home, "broken")
    assert home.resident == ("a",)


def test_an_unknown_key_is_told_with_near_ones() -> None:
    with pytest.raises(UnknownMethodError, match="telea"):
        use(Residency(1000), "telia")


def test_many_threads_at_once_load_each_method_once_and_leave_nothing_borrowed() -> None:
    loads = Loads()
    home = residency(loads, 1000, a=400, b=400)

    def work() -> None:
        for _ in range(50):
            with ExitStack() as stack:
                for key in "ab":
                    stack.enter_context(home.borrow(key))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(loads.order) == ["a", "b"]
    home.put_out()
    assert home.resident == ()


def test_what_was_done_with_is_gone_before_the_next_is_loaded() -> None:
    """Peak memory is that of the budget, not of old and new together."""
    loads = Loads()
    seen: list[object] = []

    def look() -> Any:
        seen.append(loads.alive["a"]())
        return telea()

    home = Residency(
        500, {"a": loads.method("a", 400), "b": Method("b", "-", "-", "-", "-", look, Needs(memory_mb=400))}
    )
    use(home, "a", "b")
    assert seen == [None]


def test_a_container_with_less_than_the_machine_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(MEMORY_VARIABLE, raising=False)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    monkeypatch.setattr("asuka_infer.residency.CGROUP_LIMIT", tmp_path / "none")
    assert room_here().together_mb == pytest.approx(0.75 * whole, abs=1)
    (tmp_path / "memory.max").write_text("2000000000\n")
    monkeypatch.setattr("asuka_infer.residency.CGROUP_LIMIT", tmp_path / "memory.max")
    assert room_here() == Room(1500, 1500)
    (tmp_path / "memory.max").write_text("max\n")
    assert room_here().together_mb == pytest.approx(0.75 * whole, abs=1)


def test_the_operator_s_word_counts_more_than_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, "700")
    loads = Loads()
    home = Residency(methods={key: loads.method(key, 400) for key in "ab"})
    use(home, "a", "b")
    assert home.resident == ("b",)
    monkeypatch.setenv(MEMORY_VARIABLE, "900")
    use(home, "a")
    assert home.resident == ("b", "a")
    monkeypatch.setenv(MEMORY_VARIABLE, "much")
    with pytest.raises(ResidencyError, match="ASUKA_MEMORY_MB is 'much'"):
        room_here()


def test_a_giant_that_waits_beside_the_gpu_gets_the_room_to_itself(
    loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's room is smaller than the machine's: what exceeds it alone is loaded after everything else has gone."""
    monkeypatch.setattr("asuka_infer.residency.room_here", lambda: Room(1000, 3000))
    home = Residency(methods={"a": loads.method("a", 400), "giant": loads.method("giant", 2500)})
    use(home, "a", "giant")
    assert home.resident == ("giant",)
    use(home, "a")
    assert home.resident == ("a",)
