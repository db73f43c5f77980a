"""Work on many pieces in this process, in several, or on a Ray cluster; whoever started it receives and writes."""

import importlib
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")

EngineName = Literal["local", "ray"]

AHEAD_PER_WORKER = 2
"""Tasks handed out ahead of time: no worker waits for a disk, and memory stays small."""


class SpreadError(RuntimeError):
    """Workers that cannot be had or died; the message says what to do."""


def spread(
    work: Callable[[Task], Answer],
    tasks: Iterable[Task],
    *,
    engine: EngineName = "local",
    workers: int = 1,
    gpus: int = 0,
) -> Iterator[Answer]:
    """The answers in the order of the tasks, which are read only shortly before their turn.

    Args:
        work: a function that other processes can import.
        tasks: what it is given, one at a time.
        engine: "local", or "ray": the cluster that RAY_ADDRESS names, else one started here.
        workers: processes.
        gpus: that each task needs, for Ray to find a place.

    Raises:
        SpreadError: when Ray is not installed or not reachable, or a worker died.
    """
    if workers < 1:
        raise SpreadError(f"{workers} workers were asked for; give 1 or more.")
    if engine == "ray":
        return _on_ray(work, tasks, workers, gpus)
    return map(work, tasks) if workers == 1 else _in_processes(work, tasks, workers)


def _in_processes(work: Callable[[Task], Answer], tasks: Iterable[Task], workers: int) -> Iterator[Answer]:
    # Spawned, because torch's threads do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_calm) as pool:
        under_way: deque[Future[Answer]] = deque()
        try:
            for task in tasks:
                under_way.append(pool.submit(work, task))
                if len(under_way) >= workers * AHEAD_PER_WORKER:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise SpreadError(
                "A worker process died (out of memory?); run the same command again with fewer --workers to continue."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _calm() -> None:
    """Threads that wait must not burn the core that works; Ctrl-C reaches all, but is for whoever started them."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _on_ray(work: Callable[[Task], Answer], tasks: Iterable[Task], workers: int, gpus: int) -> Iterator[Answer]:
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise SpreadError("Ray is not installed; run `pip install ray`, or leave out --engine ray.") from error
    return _with_ray(ray, work, tasks, workers, gpus)


def _with_ray(
    ray: Any, work: Callable[[Task], Answer], tasks: Iterable[Task], workers: int, gpus: int
) -> Iterator[Answer]:
    address = os.environ.get("RAY_ADDRESS")
    here = {} if address else {"num_cpus": workers, "include_dashboard": False}
    package = str(Path(__file__).parents[1])
    try:
        ray.init(
            address=address,
            runtime_env={"py_modules": [package]},
            log_to_driver=False,
            logging_level=logging.WARNING,
            **here,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SpreadError(f"The Ray cluster {address or 'here'} could not be reached: {error}") from error
    try:
        run = ray.remote(work).options(num_gpus=gpus)
        most = AHEAD_PER_WORKER * max(1, int(ray.cluster_resources().get("CPU", workers)))
        under_way: deque[Any] = deque()
        for task in tasks:
            under_way.append(run.remote(task))
            if len(under_way) >= most:
                yield ray.get(under_way.popleft())
        while under_way:
            yield ray.get(under_way.popleft())
    except ray.exceptions.RayError as error:
        raise SpreadError(f"Ray lost a task ({error}); run the same command again to continue.") from error
    finally:
        ray.shutdown()
