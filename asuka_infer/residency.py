"""Several loaded methods at once within a budget of memory: what was used longest ago makes room first."""

import gc
import os
import sys
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from asuka_infer.catalog import METHODS, Method, find_method
from asuka_infer.inpainter import Inpainter

LEAST_MB = 100
"""What a method counts that says it needs less."""

MEMORY_VARIABLE = "ASUKA_MEMORY_MB"
"""Megabytes that all loaded methods may need together, instead of what suits the machine."""

SHARE_OF_MEMORY, SHARE_OF_GPU = 0.75, 0.9
"""How much of a machine's memory and of a GPU's methods may fill; the rest is for photographs and everybody else."""

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says how much of the machine a container may use (cgroup v2); "max" or no such file: all of it."""


class ResidencyError(RuntimeError):
    """A method that the budget has no room for; the message says how much it needs and what there is."""


@dataclass(frozen=True)
class Room:
    """How much memory methods may take.

    Attributes:
        together_mb: all loaded methods.
        alone_mb: one method that has the room to itself; more than `together_mb` where a GPU's models can wait for
            their turn in the machine's memory (`asuka_infer.placement` offloads then).
    """

    together_mb: int
    alone_mb: int


def room_here() -> Room:
    """What this machine has, or what `ASUKA_MEMORY_MB` says.

    Raises:
        ResidencyError: when that is no whole number above 0.
    """
    said = os.environ.get(MEMORY_VARIABLE)
    if said:
        if not said.isdecimal() or int(said) < 1:
            raise ResidencyError(f"{MEMORY_VARIABLE} is {said!r}; give megabytes, a whole number, or unset it.")
        return Room(int(said), int(said))
    machine = int(SHARE_OF_MEMORY * _memory_here())
    torch = sys.modules.get("torch")  # loading it only to ask would take seconds
    if torch is None or not torch.cuda.is_available():
        return Room(machine, machine)
    gpu = int(SHARE_OF_GPU * torch.cuda.mem_get_info()[1] / 1e6)
    return Room(gpu, max(gpu, machine))


@dataclass(eq=False)
class Residency:
    """Keeps methods loaded, never more than the budget allows by what the catalog says each needs.

    Methods that share their weights (`Method.shares`) count once, as the largest of them. A method in use is never
    put out. Any thread may borrow; one loads at a time.

    Attributes:
        budget_mb: for all loaded methods together; None asks `room_here` whenever something is loaded.
        methods: what can be borrowed; other keys are looked up in the catalog.
    """

    budget_mb: int | None = None
    methods: Mapping[str, Method] = field(default_factory=lambda: METHODS)
    _loaded: dict[str, "_Resident"] = field(default_factory=dict[str, "_Resident"], init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    @property
    def resident(self) -> tuple[str, ...]:
        """The keys that are loaded, the one used longest ago first; answers at once, also while something loads."""
        return tuple(self._loaded)

    @property
    def memory_mb(self) -> int:
        """What the loaded methods need together."""
        with self._lock:
            return _together(resident.method for resident in self._loaded.values())

    @contextmanager
    def borrow(self, key: str) -> Generator[Inpainter]:
        """The method of that key, loaded if it is not; it stays while it is borrowed.

        Raises:
            UnknownMethodError: when there is none.
            ResidencyError: when it does not fit, alone or beside those in use.
            Exception: whatever its loader raises, and nothing else is lost but what had to make room.
        """
        resident = self._take(key)
        try:
            yield resident.inpainter
        finally:
            with self._lock:
                resident.users -= 1

    def put_out(self, key: str | None = None) -> None:
        """Forget one method, or all of them, unless in use."""
        with self._lock:
            for name in self.resident if key is None else (key,):
                if name in self._loaded and not self._loaded[name].users:
                    del self._loaded[name]
        _return_memory()

    def _take(self, key: str) -> "_Resident":
        with self._lock:
            resident = self._loaded.pop(key, None)
            if resident is None:
                method = self.methods[key] if key in self.methods else find_method(key)
                self._make_room(method)
                resident = _Resident(method, method.load())
            self._loaded[key] = resident  # at the end: used last
            resident.users += 1
            return resident

    def _make_room(self, method: Method) -> None:
        room = room_here() if self.budget_mb is None else Room(self.budget_mb, self.budget_mb)
        if _memory(method) > room.alone_mb:
            raise ResidencyError(
                f"{method.key} needs {_memory(method)} MB but the budget for loaded methods is {room.alone_mb} MB; "
                f"raise the budget ({MEMORY_VARIABLE}) or choose a smaller method."
            )
        dropped = False
        while self._loaded and _together([*(e.method for e in self._loaded.values()), method]) > room.together_mb:
            idle = next((key for key, each in self._loaded.items() if not each.users), None)
            if idle is None:
                raise ResidencyError(
                    f"{method.key} needs {_memory(method)} MB, but {', '.join(self._loaded)} are at work and fill the "
                    f"budget of {room.together_mb} MB; wait for them or raise it."
                )
            del self._loaded[idle]
            dropped = True
        if dropped:
            _return_memory()


@dataclass(eq=False)
class _Resident:
    method: Method
    inpainter: Inpainter
    users: int = 0


def _memory_here() -> float:
    """Megabytes of this machine, or of the container if that has fewer."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    limit = CGROUP_LIMIT.read_text(encoding="ascii").strip() if CGROUP_LIMIT.is_file() else "max"
    return min(machine, int(limit) / 1e6) if limit.isdecimal() else machine


def _memory(method: Method) -> int:
    return max(method.needs.memory_mb, LEAST_MB)


def _together(methods: Iterable[Method]) -> int:
    largest: dict[str, int] = {}
    for method in methods:
        group = f"shared {method.shares}" if method.shares else method.key
        largest[group] = max(largest.get(group, 0), _memory(method))
    return sum(largest.values())


def _return_memory() -> None:
    """What nobody holds any more goes back to the machine; torch keeps a GPU's until it is told."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
