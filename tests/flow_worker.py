"""Started by a test: a flow run of two steps of a toy project; prints the state that it ends in."""

import sys
from pathlib import Path

from prefect import flow

from flows.pipeline import run_stage
from flows.workspace import Workspace


@flow(name="two-steps", persist_result=False)
def two_steps(root: str) -> None:
    workspace = Workspace(Path(root), Path(root), "run")
    for stage in ("double", "slow"):
        run_stage.with_options(name=stage, task_run_name=stage)(stage, workspace, unchanged=False)


if __name__ == "__main__":
    print("ended as", two_steps(sys.argv[1], return_state=True).type.value)
