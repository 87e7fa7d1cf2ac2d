"""Following the registry: a champion that is promoted is loaded beside the old one and takes its place.

Whatever fails (MLflow is down, the new version cannot be loaded), the old one goes on answering, and the log says so.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from clha_core.serving.app import Deployment
from clha_core.serving.engine import Engine
from clha_core.serving.source import Registered

logger = logging.getLogger(__name__)
LONGEST_PAUSE = 60.0  # seconds between two tries while they fail


def load_version(registered: Registered, version: Any, max_context: int | None) -> Engine:
    """A version in memory; what was downloaded for it is gone then."""
    with TemporaryDirectory(prefix="clha-serve-") as scratch:
        return Engine(registered.source(version, Path(scratch)), max_context)


def follow(
    deployment: Deployment,
    registered: Registered,
    load: Callable[[Any], Engine],
    seconds: float,
    stop: Event,
) -> None:
    """Ask the registry every `seconds` which version it is now, until `stop`; after failures less and less often.

    Args:
        deployment: with a loaded version of the registry.
        load: makes an engine of MLflow's ModelVersion.
    """
    pause, failing = seconds, False
    while not stop.wait(pause):
        try:
            version = registered.version()
            served = deployment.current().source.version
            if f"{version.name}/{version.version}" != served:
                logger.info("loading %s/%s beside %s", version.name, version.version, served)
                deployment.engine = load(version)
                logger.info("%s answers from now on", deployment.engine.source.version)
        except Exception as error:  # of MLflow, its HTTP client, the file system, the checkpoint
            pause, failing = max(seconds, min(2 * pause, LONGEST_PAUSE)), True
            logger.warning("goes on with what is loaded, asks again in %.0f s: %s", pause, error)
        else:
            if failing:
                logger.info("the registry is followed again")
            pause, failing = seconds, False
