"""Shards rated by actors of a Ray cluster: reward models on several machines.

The cluster is the one that RAY_ADDRESS names, or a new one on this machine. Everything that is shared goes through the
process that started the run: it reads the rows and writes the scores, so that machines need no common disk for them.
"""

import os
import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from clha_core.errors import UserError
from clha_core.rescoring.shards import Rewards, Shard
from clha_core.rescoring.workers import ATTEMPTS, Load, RowRater, rate_shard

OBJECT_STORE_BYTES = 256 * 2**20  # of a local cluster: holds one shard per worker, and Ray's default is 30 % of memory

# A new cluster is for this user and this machine. Ray reads these when it is imported.
LOCAL_CLUSTER = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: no other machines, so it listens on 127.0.0.1 alone
    "RAY_AUTH_MODE": "token",
}


def rate_on_ray(load: Load, shards: Iterator[Shard], workers: int, threads: int) -> Generator[tuple[str, Rewards]]:
    """Rate shards in `workers` actors (0: one per GPU of the cluster); results come in the order in which they finish.

    An actor that dies is started again by Ray, on another machine if need be, and its shard rated again.

    Args:
        threads: CPUs that an actor asks for where the cluster has no GPUs.

    Raises:
        UserError: Ray is not installed, no cluster, too small a cluster, an actor that dies of every attempt, or as
            rate_shard().
    """
    with _cluster(workers * threads):
        import ray
        from ray.exceptions import RayActorError, RayTaskError
        from ray.util import ActorPool

        places, needs = _places(ray.cluster_resources(), threads)
        if workers > places:
            raise UserError(
                f"rescore.workers is {workers}, but the Ray cluster has room for {places} with {needs} each: lower "
                "it, or add machines first."
            )
        actor = ray.remote(max_restarts=-1, max_task_retries=ATTEMPTS - 1, **needs)(_Actor)
        actors = [actor.remote(load, number) for number in range(workers or (places if "num_gpus" in needs else 1))]
        pool = ActorPool(actors)
        try:
            for shard in shards:
                if not pool.has_free():
                    yield pool.get_next_unordered()
                pool.submit(lambda actor, shard: actor.rate.remote(shard), shard)
            while pool.has_next():
                yield pool.get_next_unordered()
        except RayActorError as error:
            raise UserError(
                f"a Ray worker died {ATTEMPTS} times of the same rows: {error}\nWhat is scored so far is kept."
            ) from None
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error) from None
        finally:
            for handle in actors:
                ray.kill(handle)


class _Actor:
    """A worker of the cluster. It loads its model when it is first asked, so that an error there is an answer."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._number = number
        self._rater: RowRater | None = None

    def rate(self, shard: Shard) -> tuple[str, Rewards]:
        self._rater = self._rater or self._load(self._number)
        return rate_shard(self._rater, shard)


def _places(resources: dict[str, float], threads: int) -> tuple[int, dict[str, int]]:
    """How many workers a cluster has room for, and what each asks of it."""
    if gpus := int(resources.get("GPU", 0)):
        return gpus, {"num_gpus": 1, "num_cpus": 0}
    return int(resources.get("CPU", 0)) // threads, {"num_cpus": threads}


@contextmanager
def _cluster(cpus: int) -> Iterator[None]:
    """Connected to a cluster: one that this process is connected to already, that of RAY_ADDRESS, or a new one."""
    if find_spec("ray") is None:
        raise UserError("rescore.executor: ray needs the package ray: pip install 'clha[ray]'.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ |= LOCAL_CLUSTER | {"RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)}
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if not address:
        options |= {"num_cpus": max(cpus, os.cpu_count() or 1), "object_store_memory": OBJECT_STORE_BYTES}
        options |= {"include_dashboard": False}
    try:
        ray.init(address or "local", **options)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()
