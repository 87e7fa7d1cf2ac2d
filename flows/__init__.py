"""Prefect flows over the stages of dvc.yaml: when and where they run. What they do is clha_core's."""

import os

from clha_core.cli import QUIET

HEARTBEAT_SECONDS = 30  # the least that Prefect takes

# Before Prefect is imported, which would report its use at once; the stages inherit it.
os.environ |= {
    **QUIET,
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Whatever runs flows has to send them: zombies.py takes a silent run for one whose process is gone.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
    **os.environ,
}
