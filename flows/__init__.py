"""Prefect flows over the stages of dvc.yaml: when and where they run. What they do is clha_core's."""

import os

from clha_core.cli import QUIET

# Before Prefect is imported, which would report its use at once; the stages inherit it.
os.environ |= {**QUIET, "DVC_NO_ANALYTICS": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", **os.environ}
