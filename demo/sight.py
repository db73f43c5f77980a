"""What a method gets to see: the crop and hole exactly as they would be handed to it, and what it imagines there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from asuka_infer.images import Picture
from asuka_infer.inpaint import ANY_SIZE, Framing, inpaint
from asuka_infer.inpainter import SILENT, Inpainter, Watch
from asuka_infer.request import Hole, InpaintRequest, InpaintResult, RgbImage
from asuka_infer.settings import HasWorkingSize, WorkingSize

MISSING_GREY = 127
"""Missing pixels as diffusion models get them: the middle of their range."""


@runtime_checkable
class ShowsPrior(Protocol):
    """A method that can say what it imagines before it begins."""

    def prior_preview(self, request: InpaintRequest) -> Mapping[str, RgbImage]:
        """Named pictures, for example {"prior": ...}, under its present settings; empty when there is nothing."""
        ...


def look(method: Inpainter, picture: Picture | RgbImage, hole: Hole, *, framing: Framing) -> dict[str, RgbImage]:
    """What `method` sees of the first hole: "seen", and whatever its `prior_preview` shows. Takes no step.

    The picture goes the way of a real run up to the method itself, so nothing here can drift from it.

    Raises:
        RequestError: for a picture or hole that nothing can be done with.
    """
    try:
        inpaint(_Onlooker(method), "onlooker", picture, hole, framing=framing)
    except _HandedOverError as handed:
        request = handed.request
        seen = request.image.copy()
        seen[request.hole] = MISSING_GREY
        prior = method.prior_preview(request) if isinstance(method, ShowsPrior) else {}
        return {"seen": np.ascontiguousarray(seen), **prior}
    return {}


class _HandedOverError(Exception):
    """Ends the run at the moment the method would begin."""

    def __init__(self, request: InpaintRequest) -> None:
        super().__init__("handed over")
        self.request = request


@dataclass(frozen=True, eq=False)
class _Onlooker:
    """Stands where the method would stand."""

    method: Inpainter

    @property
    def settings(self) -> Any:
        return self.method.settings

    @property
    def working_size(self) -> WorkingSize:
        return self.method.working_size if isinstance(self.method, HasWorkingSize) else ANY_SIZE

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        del watch
        raise _HandedOverError(request)

    def with_settings(self, **changes: Any) -> Self:
        del changes
        return self
