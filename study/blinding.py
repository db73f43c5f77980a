"""What may reach a participant: the one model a trial is shown through, and image bytes that tell only pixels."""

import hashlib
import hmac
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHUNK_OVERHEAD = 12
"""Bytes a PNG chunk needs besides its data: length, type, checksum (PNG specification, section 5.3)."""

PADDING_CHUNK = b"raNd"
"""Ancillary (r), private (a), conforming (N), safe to copy (d): PNG specification, section 5.4. Decoders skip it."""

SHORTEST_PADDING = 32
"""Random bytes that even the longest picture of a trial gets: no served file has the hash of a published one."""

LENGTH_STEP = 16 * 1024
"""Served lengths are multiples of this, our choice: it blunts recognising a pair of pictures by its exact length, and
costs on average 8 kB for pictures of some hundred."""

TOKEN_BYTES = 16
"""128 bits: guessing one of a million live tokens at 10^4 tries a second takes 10^21 years."""


class PngError(ValueError):
    """Bytes that are no PNG picture, or that are already longer than they were asked to become."""


class Stimulus(BaseModel):
    """One picture of a trial: fetch it from /study/s/{token} with the session's bearer token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str = Field(description="opaque, 128 bits, valid for this session and trial alone")


class BlindTrial(BaseModel):
    """Everything a browser may know about a trial; no other form of a trial is ever serialised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(description="opaque; names the trial in /trial/{id}/...")
    number: int = Field(ge=1, description="counts from 1 within the session, for progress")
    practice: bool = False
    width: int = Field(ge=1, description="pixels, the same for every picture of the trial")
    height: int = Field(ge=1)
    input: Stimulus = Field(description="the photograph with its hole shown")
    candidates: tuple[Stimulus, ...] = Field(description="in position order: 0 left, 1 right; or 0 to n - 1")
    criteria: tuple[str, ...] = Field(description="keys of the questions, in the order to ask them")


def stimulus_token(session_token: str, trial_id: str, slot: str) -> str:
    """The token of one picture of one trial.

    It follows from the session's secret token, so a reload shows the same tokens while the database stores hashes only.
    """
    digest = hmac.digest(session_token.encode(), f"stimulus {trial_id} {slot}".encode(), "sha256")
    return digest[:TOKEN_BYTES].hex()


def token_hash(token: str) -> str:
    """What the database stores of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def served_length(lengths: Sequence[int]) -> int:
    """The one length at which all pictures of a trial are served, given the lengths of their files."""
    longest = max(lengths) + CHUNK_OVERHEAD + SHORTEST_PADDING
    return -(-longest // LENGTH_STEP) * LENGTH_STEP


def level_lengths(pngs: Sequence[bytes]) -> list[bytes]:
    """The same pictures in files of one length, to which the fresh padding of a served file just fits.

    The pictures of one photograph are stored so: a file that compressed well would be read and padded sooner than the
    others, and a few hundred fetches would tell whose it is (benchmarks/study_timing.py).

    Raises:
        PngError: when one does not end like a PNG.
    """
    longest = max(map(len, pngs)) + CHUNK_OVERHEAD
    return [pad_png(png, served_length([longest]) - CHUNK_OVERHEAD - SHORTEST_PADDING, bytes) for png in pngs]


def pad_png(png: bytes, length: int, padding: Callable[[int], bytes]) -> bytes:
    """The same picture in a file of exactly `length` bytes, filled up by a chunk that decoders skip.

    Args:
        png: of the picture.
        length: bytes wanted.
        padding: gives that many bytes; random ones make a file that was never served before.

    Raises:
        PngError: when `png` does not end like a PNG or is too long to be padded to `length`.
    """
    end = b"\x00\x00\x00\x00IEND\xaeB`\x82"
    if not png.startswith(PNG_SIGNATURE) or not png.endswith(end):
        raise PngError("These bytes are no complete PNG file; ingest the study's pictures again.")
    filling = length - len(png) - CHUNK_OVERHEAD
    if filling < 0:
        raise PngError(f"A PNG of {len(png)} bytes cannot be padded to {length}; ask for at least {len(png) + 12}.")
    data = padding(filling)
    checksum = zlib.crc32(PADDING_CHUNK + data)
    chunk = struct.pack(">I", filling) + PADDING_CHUNK + data + struct.pack(">I", checksum)
    return png[: -len(end)] + chunk + end


def png_chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, data) of every chunk, in file order.

    Raises:
        PngError: when the bytes are no PNG or break off.
    """
    if not png.startswith(PNG_SIGNATURE):
        raise PngError("These bytes are no PNG file: the signature is missing.")
    at = len(PNG_SIGNATURE)
    while at < len(png):
        if at + CHUNK_OVERHEAD > len(png):
            raise PngError(f"The PNG breaks off at byte {at}.")
        (size,) = struct.unpack_from(">I", png, at)
        if at + CHUNK_OVERHEAD + size > len(png):
            raise PngError(f"The PNG breaks off within the chunk at byte {at}.")
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += CHUNK_OVERHEAD + size


def telling_chunks(png: bytes) -> list[str]:
    """Names of the chunks that carry more than pixels (text, times, profiles); empty for a picture fit to be shown."""
    pixels_only = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", PADDING_CHUNK}
    return [kind.decode("latin-1") for kind, _ in png_chunks(png) if kind not in pixels_only]
