"""Runs take turns at the GPU: the steps that use a model share a concurrency limit of Prefect.

A step in a work pool is not counted here: how many steps a machine does at once is an option of its worker.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from flows.stage import STAGES

GPU_LIMIT = "clha-gpu"
WITHOUT_MODEL = {"ingest", "validate"}
GPU_STEPS = frozenset(STAGES) - WITHOUT_MODEL
LEASE_SECONDS = 60.0  # the least that Prefect takes; it is renewed while the step runs


def gpus() -> int:
    """NVIDIA GPUs of this machine. (torch could say, and takes seconds to import.)"""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def require_gpu_limit() -> None:
    """Create the limit, one step for each GPU, or one at all. One that is there stays as somebody has set it."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(GPU_LIMIT)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=max(1, gpus())))


@contextmanager
def gpu_turn(stage: str, is_cached: Callable[[], bool], log: Callable[[str], object]) -> Iterator[None]:
    """Hold a slot of the limit while the block runs; wait for one, with a message, unless there is nothing to compute.

    A process that dies gives its slot back when its lease ends.
    """
    if stage not in GPU_STEPS:
        yield
        return
    with ExitStack() as turn:
        try:
            # Not a short time limit: an answer of the server that comes after it would leave a slot with nobody.
            turn.enter_context(concurrency(GPU_LIMIT, max_retries=0, lease_duration=LEASE_SECONDS))
        except ConcurrencySlotAcquisitionError:
            if not is_cached():
                log(f"waiting for a slot: other runs compute with models (Prefect's UI, Concurrency, {GPU_LIMIT})")
                turn.enter_context(concurrency(GPU_LIMIT, lease_duration=LEASE_SECONDS))
        yield
