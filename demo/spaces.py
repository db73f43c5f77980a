"""Hugging Face's ZeroGPU: a Space that gets a GPU only while a decorated function runs. Anywhere else: nothing.

Import this before torch: the `spaces` package has to be there first to lend the GPU.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, TypeVar

SECONDS = 120
"""How long a run may hold the GPU: eight candidates of twenty steps take half of it (our choice). A Space's visitors
have some minutes a day, so that an hour would only be refused."""

SECONDS_VARIABLE = "ASUKA_GPU_SECONDS"
"""Overrides `SECONDS`."""

Handler = TypeVar("Handler", bound=Callable[..., Any])


class GpuSecondsError(ValueError):
    """A time that is none."""


spaces: Any = importlib.import_module("spaces") if importlib.util.find_spec("spaces") is not None else None
"""The package of Spaces with ZeroGPU, None elsewhere."""


def on_zero_gpu(handler: Handler) -> Handler:
    """The handler, holding a GPU while it runs where there is ZeroGPU; the handler itself anywhere else.

    It then runs in a forked process: what it is given and what it returns or yields must be picklable, and nothing it
    keeps survives the call.

    Raises:
        GpuSecondsError: when `ASUKA_GPU_SECONDS` is no whole number above 0.
    """
    if spaces is None:
        return handler
    said = os.environ.get(SECONDS_VARIABLE) or str(SECONDS)
    if not said.isdecimal() or int(said) < 1:
        raise GpuSecondsError(f"{SECONDS_VARIABLE} is {said!r}; give seconds, a whole number above 0, or unset it.")
    return spaces.GPU(duration=int(said))(handler)
