"""Rewards that cannot be rewards."""

import math
from collections.abc import Sequence

from clha_core.errors import UserError

NAMED = 5


def check_finite(rewards: Sequence[Sequence[float]], ids: Sequence[str]) -> None:
    """Refuse rewards that are NaN or infinite.

    Args:
        rewards: of the candidates of each row.
        ids: of the rows.

    Raises:
        UserError: with the number of rows, the first ids, and what to check.
    """
    bad = [name for name, row in zip(ids, rewards, strict=True) if not all(map(math.isfinite, row))]
    if bad:
        raise UserError(
            f"the reward model gave {len(bad)} of {len(ids)} rows scores that are not finite, first {_names(bad)}: "
            "set reward_model.dtype to float32 (half precision overflows), and check that the checkpoint is complete."
        )


def check_scores(rewards: Sequence[Sequence[float]], ids: Sequence[str]) -> None:
    """Refuse rewards that are not finite, or that tell nothing apart; for all rows of a run at once.

    Raises:
        UserError: a reward that is not finite; the same reward everywhere; or in every row the same for all candidates.
    """
    check_finite(rewards, ids)
    values = [value for row in rewards for value in row]
    if len(values) > 1 and len(set(values)) == 1:
        raise UserError(
            f"the reward model gives every text the same score, {values[0]:g} ({len(ids)} rows, first {_names(ids)}): "
            "check reward_model.text_format, and that the checkpoint's head was trained."
        )
    compared = [row for row in rewards if len(row) > 1]
    if len(compared) > 1 and all(len(set(row)) == 1 for row in compared):
        raise UserError(
            f"the reward model gives all candidates of a row the same score, in each of {len(compared)} rows (first "
            f"{_names(ids)}): it does not read the responses. Check reward_model.text_format and max_length."
        )


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
