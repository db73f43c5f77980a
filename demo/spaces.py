"""Hugging Face's ZeroGPU: a Space that gets a GPU only while a decorated function runs. Anywhere else: nothing.

Import this before torch: the `spaces` package has to be there first to lend the GPU.
"""

import importlib
import importlib.util
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

SECONDS = 120
"""The longest a run may hold the GPU: eight candidates of twenty steps take half of it (our choice). A Space's visitors
have some minutes a day, so that an hour would only be refused."""

SECONDS_VARIABLE = "ASUKA_GPU_SECONDS"
"""Overrides `SECONDS`."""

Handler = TypeVar("Handler", bound=Callable[..., Any])


class GpuSecondsError(ValueError):
    """A time that is none."""


spaces: Any = importlib.import_module("spaces") if importlib.util.find_spec("spaces") is not None else None
"""The package of Spaces with ZeroGPU, None elsewhere."""


def on_zero_gpu(handler: Handler, *, seconds: Callable[..., float]) -> Handler:
    """The handler, holding a GPU while it runs where there is ZeroGPU; the handler itself anywhere else.

    It then runs in a forked process: what it is given and what it returns or yields must be picklable, and nothing it
    keeps survives the call. Exceptions lose their words on the way back, so it should hand them over instead of
    raising. A generator that is closed is closed there too, at its next yield.

    Args:
        handler: a function or a generator function.
        seconds: how long a call with the handler's arguments may take. A visitor needs that much of the day's quota
            to be let in, and short calls are served first, so it should not ask for more than it needs.

    Raises:
        GpuSecondsError: when `ASUKA_GPU_SECONDS` is no whole number above 0.
    """
    if spaces is None:
        return handler
    said = os.environ.get(SECONDS_VARIABLE) or str(SECONDS)
    if not said.isdecimal() or int(said) < 1:
        raise GpuSecondsError(f"{SECONDS_VARIABLE} is {said!r}; give seconds, a whole number above 0, or unset it.")
    most = int(said)

    def duration(*arguments: Any) -> int:
        return min(most, round(seconds(*arguments)))

    return spaces.GPU(duration=duration)(handler)


def keep_forks_usable(lock: threading.Lock) -> None:
    """From now on no process forks while `lock` is held: nobody would be left to open it in the fork.

    OpenMP's threads are no trouble as long as the fork computes in a thread that did not exist before, as `spaces` and
    `demo.engine` do; in the thread that forked, torch would wait for workers that are gone (measured, on a CPU).
    """
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
