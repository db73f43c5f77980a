"""A small proof of work on beginning a public session, after hashcash: cheap for one person, dear for thousands.

The challenge is signed, not stored. What a proof is worth is a signal (`study.signals`), never a refusal.
"""

import hashlib
import hmac
from collections.abc import Callable

from db.models import SignalOutcome
from study.messages import Challenge, Proof

NAME = "proof_of_work"
"""Of the signal."""

GOOD_FOR_S = 600
"""Seconds from handing out a challenge to its last use: the slowest phone needs one for 20 bits (our choice)."""

MICROSECONDS = 1_000_000


class Proofs:
    """Hands out challenges and judges their answers; every process has a secret of its own."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._secret = random_bytes(32)
        self._spent: dict[str, int] = {}

    def challenge(self, *, now: int) -> Challenge:
        """Something to work on, good for ten minutes; `now` in UTC microseconds."""
        said = f"{now // MICROSECONDS}.{self._random_bytes(16).hex()}"
        return Challenge(challenge=f"{said}.{self._signed(said)}")

    def judge(self, proof: Proof | None, *, bits: int, now: int) -> SignalOutcome:
        """What a proof says.

        Unknown is what may have honest reasons: a browser that cannot do the work, a page left open for long, a
        challenge of another process. Fail is a challenge that was used before, or an answer that is none.
        """
        if proof is None:
            return SignalOutcome.UNKNOWN
        said, _, signature = proof.challenge.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signed(said).encode()):
            return SignalOutcome.UNKNOWN
        age = now // MICROSECONDS - int(said.partition(".")[0])
        if not 0 <= age <= GOOD_FOR_S:
            return SignalOutcome.UNKNOWN
        if leading_zero_bits(f"{proof.challenge}:{proof.answer}") < bits or proof.challenge in self._spent:
            return SignalOutcome.FAIL
        oldest = now // MICROSECONDS - GOOD_FOR_S
        self._spent = {used: since for used, since in self._spent.items() if since >= oldest}
        self._spent[proof.challenge] = now // MICROSECONDS
        return SignalOutcome.PASS

    def _signed(self, said: str) -> str:
        return hmac.digest(self._secret, said.encode(), "sha256").hex()


def leading_zero_bits(text: str) -> int:
    """How many zero bits the SHA-256 of a text begins with."""
    digest = hashlib.sha256(text.encode()).digest()
    return 8 * len(digest) - int.from_bytes(digest).bit_length()
