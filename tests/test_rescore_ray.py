"""Rescoring on a Ray cluster: the bytes of one process, whoever dies."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from raters import Failing, Mortal, OneRowDiffers, StandIn
from test_rescore_workers import IDS, expected, rescored, table  # noqa: F401  (fixtures)

from clha_core.errors import UserError
from clha_core.rescoring import ray_workers
from clha_core.rescoring.ray_workers import rate_on_ray
from clha_core.rescoring.streamed import Rate
from clha_core.rescoring.workers import Load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One local cluster for all tests: as the stage starts it where RAY_ADDRESS is not set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setattr(ray_workers, "OBJECT_STORE_BYTES", 80 * 2**20)
        with ray_workers._cluster(2):
            yield


def on_ray(load: Load, workers: int) -> Rate:
    return lambda missing, count: rate_on_ray(load, missing, workers, threads=1)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_actors_give_the_bytes_of_one_process(table: Path, expected: bytes, workers: int) -> None:  # noqa: F811
    rater = StandIn(table.with_name("log"))
    assert rescored(table, on_ray(rater, workers)) == expected
    assert sorted(id_ for shard in rater.shards_rated() for id_ in shard) == IDS


def test_the_shard_of_an_actor_whose_process_is_killed_is_rated_again(table: Path, expected: bytes) -> None:  # noqa: F811
    rater = Mortal(table.with_name("log"), row=IDS[9], lives=1)
    assert rescored(table, on_ray(rater, 2)) == expected
    assert sum(IDS[9] in shard for shard in rater.shards_rated()) == 2


def test_rows_that_every_actor_dies_of_end_the_run(table: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match="died 3 times of the same rows"):
        rescored(table, on_ray(Mortal(table.with_name("log"), row=IDS[9], lives=99), 2))


def test_a_problem_that_a_user_can_mend_arrives_as_such(table: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match=f"1 of 4 rows scores that are not finite, first {IDS[9]}:"):
        rescored(table, on_ray(OneRowDiffers(table.with_name("log"), row=IDS[9], value=float("inf")), 2))


def test_any_other_error_arrives_with_its_traceback(table: Path) -> None:  # noqa: F811
    with pytest.raises(ZeroDivisionError, match=r"raters\.py"):
        rescored(table, on_ray(Failing(table.with_name("log"), row=IDS[9]), 1))


def test_more_workers_than_the_cluster_has_room_for_are_refused(table: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match=r"rescore\.workers is 99, but the Ray cluster has room for 2 "):
        rescored(table, on_ray(StandIn(table.with_name("log")), 99))
