"""Shards rated by a reward model in this process, or by one in each of several processes of this machine.

Rewards are the same bytes either way: a shard is always rated as a whole, with the same number of threads.
"""

import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any, Protocol

from clha_core.errors import UserError
from clha_core.rescoring.shards import Rewards, Shard
from clha_core.scoring.checks import check_scores

# How often a shard is tried: what ends a worker once is an accident, what ends three is the shard or the machine.
ATTEMPTS = 3


class RowRater(Protocol):
    """What rates rows: a Rater."""

    def rate(self, rows: Sequence[Mapping[str, Any]], description: str) -> Rewards:
        """Reward of every candidate of every row."""
        ...


# Loads the model of the worker with this number, 0 and up. It is sent to workers: a function of a module, or a partial.
Load = Callable[[int], RowRater]


def rate_shard(rater: RowRater, shard: Shard) -> tuple[str, Rewards]:
    """The key of a shard and its rewards.

    A shard is large enough to tell a model that says nothing: it stops the run here, and not after hours.

    Raises:
        UserError: scores that cannot be rewards, with the ids of their rows.
    """
    rewards = rater.rate(shard.rows, description="")
    check_scores(rewards, [row["id"] for row in shard.rows])
    return shard.key, rewards


def rate_here(load: Load, shards: Iterator[Shard]) -> Generator[tuple[str, Rewards]]:
    """Rate shards in this process, one after the other."""
    rater = load(0)
    for shard in shards:
        yield rate_shard(rater, shard)


def rate_in_processes(load: Load, shards: Iterator[Shard], workers: int) -> Generator[tuple[str, Rewards]]:
    """Rate shards in `workers` processes, which end with this one; results come in the order in which they finish.

    A worker that dies is replaced, and its shard rated by another. At most one shard per worker is in memory.

    Raises:
        UserError: as rate_shard(), and where ATTEMPTS workers died of one shard.
    """
    idle = [_Worker(load, number) for number in range(workers)]
    busy: dict[Connection, _Worker] = {}
    lost: list[tuple[Shard, int]] = []
    try:
        while True:
            while idle and (task := lost.pop() if lost else next(((shard, 1) for shard in shards), None)):
                worker = idle.pop()
                worker.give(*task)
                busy[worker.pipe] = worker
            if not busy:
                return
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker = busy.pop(pipe)
                try:
                    answer = pipe.recv()
                except (EOFError, OSError):
                    worker.end()
                    idle.append(_Worker(load, worker.number))
                    lost.append(worker.task_again())
                    continue
                idle.append(worker)
                if isinstance(answer, Exception):
                    raise answer
                yield answer
    finally:
        for worker in [*idle, *busy.values()]:
            worker.end()


class _Worker:
    """A process that rates the shards it is given, and this end of the pipe to it."""

    def __init__(self, load: Load, number: int) -> None:
        context = get_context("spawn")  # forked processes cannot use a GPU
        self.number = number
        self.pipe, its_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(load, number, its_end), daemon=True)
        self._process.start()
        its_end.close()

    def give(self, shard: Shard, attempt: int) -> None:
        self._task = shard, attempt
        with suppress(OSError):  # it is dead: whoever waits for its answer hears of it
            self.pipe.send(shard)

    def task_again(self) -> tuple[Shard, int]:
        """Its task, which it died of.

        Raises:
            UserError: the last of the attempts.
        """
        shard, attempt = self._task
        if attempt == ATTEMPTS:
            raise UserError(
                f"{ATTEMPTS} workers died of the rows {shard.rows[0]['id']} to {shard.rows[-1]['id']}, the last with "
                f"exit status {self._process.exitcode} (-9: killed, mostly for want of memory). Lower rescore.workers "
                "or the batches of reward_model; what is scored so far is kept."
            )
        return shard, attempt + 1

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(load: Load, number: int, pipe: Connection) -> None:
    """Rate what comes through the pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends its workers
    Thread(target=_end_with_parent, daemon=True).start()
    rater: RowRater | None = None
    while True:
        try:
            shard = pipe.recv()
        except EOFError:
            return
        try:
            rater = rater or load(number)
            pipe.send(rate_shard(rater, shard))
        except Exception as error:
            error.add_note(traceback.format_exc())  # pickling an exception loses where it happened
            pipe.send(error)


def _end_with_parent() -> None:
    """End this process in the middle of whatever it does when its parent is gone, even by SIGKILL."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
