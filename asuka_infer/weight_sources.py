"""Where a method's weights come from and whether they are here: a local folder, the hub's cache, or one command away.

Nothing here loads a weight, and only `fetch` uses the network.
"""

import hashlib
import importlib.util
import json
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

WEIGHTS_VARIABLE = "ASUKA_WEIGHTS"
"""The environment variable that names the folder with one folder of weights per source."""

DEFAULT_FOLDER = Path.home() / ".cache" / "asuka" / "weights"
"""Where local weights lie when the variable is not set: beside the hub's own cache."""

PROBE_SECONDS = 4.0
"""How long a host may take to answer at all; the whole `fetch` of what cannot be reached stays below 5 s."""

COPY_BLOCK = 1 << 20
"""Bytes per write while downloading: our choice."""

SMALL_FILES = ("*.json", "*.txt", "*.model")
"""Configurations and vocabularies, which every part of a diffusers folder needs."""

SHARD_INDEX = "**/*.safetensors.index.json"
"""Hub folders with large weights name their shards in such files."""


class WeightsNotHereError(RuntimeError):
    """Weights or packages that are missing here; the message names the method and what makes it ready."""


class FetchError(RuntimeError):
    """A download that did not happen or came damaged; the message says what to do instead."""


@dataclass(frozen=True)
class WeightSource:
    """One set of weight files.

    Attributes:
        name: of its folder below `ASUKA_WEIGHTS`.
        needed: glob patterns ("a|b" for either); the set is here when each of them matches a file.
        holds: what the folder must hold, for people.
        repo: the hub's id, or empty.
        pick: what of the repository is tried first (half precision, say), glob patterns; else what `needed` names.
        url: of a single file instead, or empty.
        sha256: of that file; a file with another is never kept.
        md5: of that file, as its publisher gives it: it finds damage, not malice.
        gated: the hub asks for a licence to be accepted first.
        size_mb: of the download, about.
        by_hand: for what nobody publishes: one clause saying where it comes from.
        also: other sources' local folders that serve as well.
        standalone: glob patterns of a local form that needs no other source beside it.
    """

    name: str
    needed: tuple[str, ...]
    holds: str
    repo: str = ""
    pick: tuple[str, ...] = ()
    url: str = ""
    sha256: str = ""
    md5: str = ""
    gated: bool = False
    size_mb: int = 0
    by_hand: str = ""
    also: tuple[str, ...] = ()
    standalone: tuple[str, ...] = ()

    @property
    def local(self) -> Path:
        """Where a local copy belongs."""
        return local_root() / self.name


def local_root() -> Path:
    """The folder with one folder of weights per source."""
    return Path(os.environ.get(WEIGHTS_VARIABLE) or DEFAULT_FOLDER)


def locate(source: WeightSource) -> Path | None:
    """The folder with all that is needed: a local one before the hub's cache; None when none is complete."""
    if stands_alone(source):
        return source.local
    folders = [source.local, *(local_root() / name for name in source.also), *_snapshots(source.repo)]
    return next((folder for folder in folders if _is_complete(folder, source.needed)), None)


def stands_alone(source: WeightSource) -> bool:
    """Whether the local folder has the form that needs no other source."""
    return bool(source.standalone) and _is_complete(source.local, source.standalone)


def locate_file(source: WeightSource) -> Path:
    """The one file of a source that is here.

    Raises:
        WeightsNotHereError: when there is none, or several so that the choice is not ours.
    """
    folder = locate(source)
    files = sorted({file for pattern in source.needed for file in _matching(folder, pattern)}) if folder else []
    if len(files) == 1:
        return files[0]
    found = f"holds {', '.join(file.name for file in files)}; keep one of them" if files else "holds none"
    raise WeightsNotHereError(f"{source.name} needs {source.holds}, but {folder or source.local} {found}.")


def what_is_missing(key: str, sources: Iterable[WeightSource], packages: Iterable[str] = ()) -> str:
    """One sentence that makes a method ready, or "" when nothing is missing. Takes milliseconds.

    Args:
        key: of the method, as `fetch` takes it.
        sources: all of them are needed.
        packages: modules that must be installed.
    """
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    sources = tuple(sources)
    complete = any(map(stands_alone, sources))
    missing = [] if complete else [source for source in sources if locate(source) is None]
    steps = [f"install what it runs on (`pip install {' '.join(name.replace('_', '-') for name in absent)}`)"]
    steps = steps if absent else []
    public = [source for source in missing if source.repo or source.url]
    if public:
        size = sum(source.size_mb for source in public)
        terms = " after accepting the licence at " + " and ".join(
            f"https://huggingface.co/{source.repo}" for source in public if source.gated
        )
        places = " and ".join(f"{source.holds} in {_place(source)}" for source in public)
        steps.append(
            f"run `python -m asuka_infer fetch {key}` ({_gigabytes(size)})"
            f"{terms if any(source.gated for source in public) else ''}, or put {places}"
        )
    steps += [f"put {source.holds} in {_place(source)}: {source.by_hand}" for source in missing if source.by_hand]
    if not steps:
        return ""
    return " and ".join(steps) + "."


def fetch(source: WeightSource) -> Path:
    """Download what is missing of a source; returns its folder.

    Raises:
        FetchError: when its host does not answer within seconds, asks for a licence to be accepted, or sends another
            file than it should.
    """
    here = locate(source)
    if here is not None:
        return here
    if not (source.repo or source.url):
        raise FetchError(f"{source.name} cannot be downloaded: {source.by_hand}; put {source.holds} in {source.local}.")
    address = source.url or constants.ENDPOINT
    reason = _why_unreachable(address)
    if reason:
        raise FetchError(
            f"{source.name} was not fetched: {address} cannot be reached ({reason}); copy {source.holds} from another "
            f"machine into {source.local}."
        )
    return _from_url(source) if source.url else _from_hub(source)


def _place(source: WeightSource) -> str:
    """For people: the variable where it is set, else the folder that stands for it."""
    if os.environ.get(WEIGHTS_VARIABLE):
        return f"${WEIGHTS_VARIABLE}/{source.name}"
    return f"~/{source.local.relative_to(Path.home()).as_posix()} or ${WEIGHTS_VARIABLE}/{source.name}"


def _gigabytes(megabytes: int) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"  # noqa: PLR2004 - MB in a GB


def _snapshots(repo: str) -> list[Path]:
    """The hub cache's copies of a repository, the one called main first."""
    if not repo:
        return []
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    main = folder / "refs" / "main"
    first = [folder / "snapshots" / main.read_text(encoding="utf-8").strip()] if main.is_file() else []
    return first + [path for path in sorted((folder / "snapshots").glob("*")) if path not in first]


def _is_complete(folder: Path, needed: tuple[str, ...]) -> bool:
    # `exists` follows the cache's links: a download that broke off has links to nothing.
    if not folder.is_dir() or not all(_matching(folder, pattern) for pattern in needed):
        return False
    if all("/" not in pattern for pattern in needed):
        return True
    return all((index.parent / name).exists() for index in folder.glob(SHARD_INDEX) for name in _shards(index))


def _matching(folder: Path, pattern: str) -> list[Path]:
    return [path for either in pattern.split("|") for path in folder.glob(either) if path.exists()]


def _shards(index: Path) -> set[str]:
    # A repository may index a variant beside the plain shards; only what was begun must be finished.
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    begun = {re.sub(r"-\d{5}-of-\d{5}", "", name) for name in names if (index.parent / name).exists()}
    siblings = list(index.parent.glob("*.safetensors"))
    return names if begun or not siblings else set()


def _why_unreachable(address: str) -> str:
    """Empty when a host answers, whatever it says; else why it does not."""
    said: list[str] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - addresses of this module alone
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):  # noqa: S310 - same
                said.append("")
        except urllib.error.HTTPError:
            said.append("")
        except OSError as error:
            said.append(str(getattr(error, "reason", error)) or type(error).__name__)

    # In a thread, because no timeout covers the look-up of a name.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    return said[0] if said else f"no answer in {PROBE_SECONDS:.0f} s"


def _from_hub(source: WeightSource) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - costs a second that listing methods must not
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415 - same

    try:
        # First what is wanted (half precision, say); where a repository has no such files, whatever serves.
        for patterns in (source.pick, source.needed):
            wanted = [either for pattern in patterns for either in pattern.split("|")]
            snapshot_download(source.repo, allow_patterns=[*wanted, *SMALL_FILES])
            found = locate(source)
            if found is not None:
                return found
    except GatedRepoError as error:
        raise FetchError(
            f"{source.repo} is only given to those who accept its licence: do so at "
            f"https://huggingface.co/{source.repo}, then run `hf auth login` and the same command again."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FetchError(
            f"{source.repo} was not fetched ({type(error).__name__}: {str(error).splitlines()[0]}); try again, or put "
            f"{source.holds} in {source.local}."
        ) from error
    raise FetchError(f"{source.repo} has no {' and '.join(source.needed)}; put {source.holds} in {source.local}.")


def _from_url(source: WeightSource) -> Path:
    target = source.local / source.url.rsplit("/", 1)[1]
    partial = target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    digests = {"SHA-256": hashlib.sha256(), "MD5": hashlib.md5(usedforsecurity=False)}
    try:
        with urllib.request.urlopen(source.url) as answer, partial.open("wb") as file:  # noqa: S310 - from the catalog
            while block := answer.read(COPY_BLOCK):
                for digest in digests.values():
                    digest.update(block)
                file.write(block)
    except OSError as error:
        raise FetchError(f"{source.url} was not fetched ({error}); try again, or put it in {source.local}.") from error
    for name, expected in {"SHA-256": source.sha256, "MD5": source.md5}.items():
        found = digests[name].hexdigest()
        if expected and found != expected:
            partial.unlink()
            raise FetchError(f"{source.url} sent another file ({name} {found}, expected {expected}).")
    partial.replace(target)
    return source.local
