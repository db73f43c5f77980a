"""ZeroGPU: the decorator where the package is, nothing where it is not."""

from collections.abc import Callable
from typing import Any

import pytest

from demo import spaces
from demo.spaces import GpuSecondsError, on_zero_gpu


class LentGpu:
    """What the `spaces` package does, without a GPU: says that it is held while the function runs."""

    def __init__(self) -> None:
        self.seconds: list[int] = []
        self.held = False

    def GPU(self, duration: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: N802 - the package's name
        self.seconds.append(duration)

        def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
            def lent(*arguments: Any) -> Any:
                self.held = True
                try:
                    return handler(*arguments)
                finally:
                    self.held = False

            return lent

        return decorate


def test_a_run_holds_the_gpu_while_it_works_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    lent = LentGpu()
    monkeypatch.setattr(spaces, "spaces", lent)
    monkeypatch.delenv("ASUKA_GPU_SECONDS", raising=False)

    def look(number: int) -> tuple[int, bool]:
        return number + 1, lent.held

    run = on_zero_gpu(look)
    assert not lent.held
    assert run(4) == (5, True)
    assert not lent.held
    assert lent.seconds == [spaces.SECONDS]


def test_an_operator_may_lend_it_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    lent = LentGpu()
    monkeypatch.setattr(spaces, "spaces", lent)
    monkeypatch.setenv("ASUKA_GPU_SECONDS", "300")
    on_zero_gpu(print)
    assert lent.seconds == [300]
    monkeypatch.setenv("ASUKA_GPU_SECONDS", "long")
    with pytest.raises(GpuSecondsError, match="'long'; give seconds"):
        on_zero_gpu(print)


def test_without_the_package_the_handler_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "spaces", None)
    assert on_zero_gpu(print) is print
