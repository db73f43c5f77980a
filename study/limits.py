"""How fast anybody may ask: answers per session, new sessions per address. Kept in memory; nothing here is stored.

An address is known for a day at most, and only as a hash under a random salt that is thrown away with it.
"""

import hmac
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

from study.service import RefusedError

DAY_S = 24 * 3600

MOST_KEYS = 200_000
"""Sessions or addresses that are remembered at once, some 100 MB at worst; beyond that, newcomers are let in unseen."""

Monotonic = Callable[[], float]


class TooManyError(RefusedError):
    """Somebody asks faster than people do.

    Attributes:
        wait_s: whole seconds after which the same request is taken.
    """

    def __init__(self, what: str, wait_s: float) -> None:
        self.wait_s = max(1, ceil(wait_s))
        super().__init__("too_many", f"Too many {what} at once; try again in {self.wait_s} s.")


@dataclass(frozen=True)
class Limits:
    """What one participant, and one address, may do; 0 lifts a limit (for `simulate` and for load tests).

    Attributes:
        answers_per_second: of one session.
        answers_per_minute: of one session.
        sessions_per_minute: begun from one address, behind which a whole lab may sit.
        proxies: trusted proxies in front of the app; each adds one entry at the end of X-Forwarded-For.
    """

    answers_per_second: int = 2
    answers_per_minute: int = 60
    sessions_per_minute: int = 30
    proxies: int = 0


class Gate:
    """Lets through what is within the limits.

    Args:
        limits: None for none at all.
        monotonic: seconds on a clock that nobody can set.
        random_bytes: source of the salt.
    """

    def __init__(
        self,
        limits: Limits | None,
        monotonic: Monotonic = time.monotonic,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._limits = limits or Limits(0, 0, 0)
        self._answers = Window({1: self._limits.answers_per_second, 60: self._limits.answers_per_minute}, monotonic)
        self._sessions = Window({60: self._limits.sessions_per_minute}, monotonic)
        self._addresses = AddressHashes(monotonic, random_bytes)

    def answer(self, token: str) -> None:
        """One more answer of a session.

        Raises:
            TooManyError: with the seconds to wait.
        """
        wait = self._answers.wait(token)
        if wait:
            raise TooManyError("answers", wait)

    def session(self, host: str, forwarded: str) -> None:
        """One more session from an address.

        Args:
            host: who is connected.
            forwarded: the X-Forwarded-For header, "" without one; looked at only if proxies are trusted.

        Raises:
            TooManyError: with the seconds to wait.
        """
        wait = self._sessions.wait(self._addresses.hashed(_visitor(host, forwarded, self._limits.proxies)))
        if wait:
            raise TooManyError("sessions from your network", wait)


class Window:
    """Counts what each key did lately; what was refused does not count.

    Args:
        most: how often by seconds; 0 for any number of times.
        monotonic: the clock.
    """

    def __init__(self, most: Mapping[int, int], monotonic: Monotonic) -> None:
        self._most = {seconds: times for seconds, times in most.items() if times}
        self._longest = max(self._most, default=0)
        self._now = monotonic
        self._seen: dict[str, deque[float]] = {}
        self._swept = monotonic()

    def __len__(self) -> int:
        return len(self._seen)

    def wait(self, key: str) -> float:
        """Count one more time; 0 when it is within every limit, else the seconds until it is."""
        if not self._most:
            return 0.0
        now = self._now()
        self._forget(now)
        seen = self._seen.get(key)
        if seen is None:
            if len(self._seen) < MOST_KEYS:
                self._seen[key] = deque([now])
            return 0.0
        while seen and seen[0] <= now - self._longest:
            seen.popleft()
        wait = max(_until_free(seen, seconds, times, now) for seconds, times in self._most.items())
        if not wait:
            seen.append(now)
        return wait

    def _forget(self, now: float) -> None:
        if now - self._swept >= self._longest:
            self._seen = {key: seen for key, seen in self._seen.items() if seen and seen[-1] > now - self._longest}
            self._swept = now


def _until_free(seen: deque[float], seconds: int, times: int, now: float) -> float:
    if len(seen) < times:
        return 0.0
    return max(0.0, seen[-times] + seconds - now)


class AddressHashes:
    """Addresses as hashes that mean something for a day, in this process alone."""

    def __init__(self, monotonic: Monotonic, random_bytes: Callable[[int], bytes]) -> None:
        self._now = monotonic
        self._random_bytes = random_bytes
        self._renew()

    def hashed(self, address: str) -> str:
        """The address under today's salt."""
        if self._now() - self._since >= DAY_S:
            self._renew()
        return hmac.digest(self._salt, address.encode(), "sha256").hex()

    def _renew(self) -> None:
        self._since, self._salt = self._now(), self._random_bytes(32)


def _visitor(host: str, forwarded: str, proxies: int) -> str:
    """The address that the outermost trusted proxy saw; what stands before it in the header may be made up."""
    hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()]
    return hops[-proxies] if 0 < proxies <= len(hops) else host
