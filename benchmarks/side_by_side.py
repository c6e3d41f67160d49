"""Several trainings at once, each in a process of its own: a large GPU, or many cores, are idle with one."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch
from arguments import count

from edgekit.runtime.errors import ChildDied

Item = TypeVar("Item")
Result = TypeVar("Result")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=count, default=1, help="trainings at once, each in a process of its own")
    parser.add_argument("--threads", type=count, help="of each training; default: the cores, shared out among --jobs")


def share_cores(options: argparse.Namespace) -> None:
    """Set how many threads a training has."""
    torch.set_num_threads(options.threads or max(1, torch.get_num_threads() // options.jobs))


def nothing(_: Any) -> Collection[Any]:
    return ()


def side_by_side(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int,
    died: Callable[[Item, ChildDied], Result],
    needs: Callable[[Item], Collection[Item]] = nothing,
) -> Generator[Result, None, None]:
    """``work`` of every item, in their order as far as possible; results come as they are ready.

    work, items: of kinds that pickle;  jobs: how many at once; with 1 all happens in this process
    died: the result of an item whose process ended without one
    needs: the items that must be over before one begins; they stand before it
    Ctrl-C and SIGTERM end all processes as they end a training: it can be resumed. Close the iterator to be sure.
    """
    if jobs == 1:
        yield from map(work, items)
        return
    waiting, running = list(items), dict[Connection, tuple[Item, BaseProcess]]()
    with _sigterm_interrupts():
        try:
            while waiting or running:
                unfinished = [*waiting, *(item for item, _ in running.values())]
                ready = [item for item in waiting if not any(other in unfinished for other in needs(item))]
                for item in ready[: jobs - len(running)]:
                    waiting.remove(item)
                    pipe, process = _begin(work, item)
                    running[pipe] = item, process
                ended = wait(list(running))
                for pipe in [pipe for pipe in running if pipe in ended]:
                    item, process = running.pop(pipe)
                    try:
                        result = _end(pipe, process)
                    except ChildDied as error:
                        result = died(item, error)
                    yield result
        finally:
            _stop([process for _, process in running.values()])


def _begin(work: Callable[[Item], Any], item: Item) -> tuple[Connection, BaseProcess]:
    context = get_context("spawn")  # a fork would share the locks of PyTorch's threads
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, item, torch.get_num_threads(), sender))
    process.start()
    sender.close()
    return receiver, process


def _child(work: Callable[[Item], Any], item: Item, threads: int, sender: Connection) -> None:
    torch.set_num_threads(threads)
    try:
        sender.send(work(item))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _end(pipe: Connection, process: BaseProcess) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        process.join()
        raise ChildDied(
            f"the process of a training ended with exit code {process.exitcode} and no result. The same command goes "
            "on from there; if memory ran out (-9), with fewer --jobs"
        ) from None
    finally:
        pipe.close()
        process.join()


def _stop(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, so that the processes are ended before this one is."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
