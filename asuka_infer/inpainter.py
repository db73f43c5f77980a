"""The one contract between methods and everybody who calls them."""

from collections.abc import Callable
from typing import Any, Protocol, Self, runtime_checkable

from asuka_infer.request import InpaintRequest, InpaintResult, RgbImage


class Cancelled(Exception):  # noqa: N818 - it reports a wish, not an error
    """Raised out of a running method because its watch asked it to stop."""


@runtime_checkable
class Watch(Protocol):
    """Hears how a running method gets on, and may stop it."""

    def step(self, done: int, total: int) -> None:
        """Told after each of `total` steps (done = 1..total); raises `Cancelled` to stop the method within one step."""
        ...

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        """Offered a look at the unfinished picture; `picture` costs time only when called."""
        ...


class _Silent:
    def step(self, done: int, total: int) -> None:
        del done, total

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        del picture


SILENT: Watch = _Silent()
"""Hears nothing and never cancels."""


@runtime_checkable
class Inpainter(Protocol):
    """A method that is ready to run: weights loaded, settings chosen, no other state.

    What every method promises (the contract tests in tests/asuka_infer hold each catalog entry to it):

    * the result has the request's size, and every pixel outside the hole is the request's own, bit for bit;
    * what lay under the hole cannot influence the result (`InpaintRequest` has removed it);
    * the same request and settings give the same result, whatever ran before.
    """

    @property
    def settings(self) -> Any:
        """The method's own knobs: a frozen dataclass whose fields are JSON values."""
        ...

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        """Fill the hole.

        Raises:
            Cancelled: when `watch` asked to stop.
        """
        ...

    def with_settings(self, **changes: Any) -> Self:
        """The same method with some settings changed, sharing the loaded weights.

        Raises:
            SettingsError: for an unknown name or a value out of range, naming it and what is allowed.
        """
        ...
