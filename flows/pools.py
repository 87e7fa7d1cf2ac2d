"""Which step runs in which of Prefect's work pools, so that training can have a machine of its own."""

import os

from clha_core.errors import UserError
from flows.stage import STAGES

# What the form of every deployment begins with.
POOLS = "CLHA_POOLS"
STEP_FLOW = "clha-step"


def parse_pools(text: str) -> dict[str, str]:
    """The pool of each step that has one: from `sft=gpu train=gpu`, separated by spaces or commas.

    Raises:
        UserError: something else than STEP=POOL, a step that there is not, or one that is named twice.
    """
    pools: dict[str, str] = {}
    for part in text.replace(",", " ").split():
        stage, equals, pool = part.partition("=")
        if not equals or not pool:
            raise UserError(f"pools: {part!r} is not STEP=POOL, as in train=gpu.")
        if stage not in STAGES:
            raise UserError(f"pools: there is no step {stage!r}; the steps are {', '.join(STAGES)}.")
        if stage in pools:
            raise UserError(f"pools: {stage} is named twice.")
        pools[stage] = pool
    return pools


def default_pools() -> str:
    """What CLHA_POOLS says.

    Raises:
        UserError: it is not valid.
    """
    text = os.environ.get(POOLS, "")
    try:
        parse_pools(text)
    except UserError as error:
        raise UserError(f"{POOLS}: {error}") from None
    return text
