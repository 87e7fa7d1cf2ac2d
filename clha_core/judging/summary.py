"""The figures of a table of verdicts."""

from collections import Counter
from typing import Any

import pandas as pd

from clha_core.errors import UserError
from clha_core.judging.agreement import outcome_agreement
from clha_core.judging.judge import REWARD_MODEL
from clha_core.judging.labels import label_score, sign
from clha_core.judging.length import length_report
from clha_core.judging.outcomes import outcomes_by_subset, share
from clha_core.params import EvaluateParams


def summarise_verdicts(judged: pd.DataFrame, judge: str, params: EvaluateParams) -> dict[str, Any]:
    """Count verdicts.

    Args:
        judged: what judge_by_endpoint() or judge_by_reward() returns.
        judge: name of the model, or REWARD_MODEL.

    Returns:
        pairs, identical and without_verdict (counts); errors: how often each kind kept a verdict away; outcomes by
        subset and in total; order: how verdicts depend on the order, or None for a judge that sees no order; length:
        what length_report() returns; agreement with the reward model and the gold reward, where they are known.

    Raises:
        UserError: not one pair has a verdict.
    """
    known = judged.dropna(subset="outcome")
    if known.empty:
        raise UserError("no pair has a verdict in both orders: see the columns first_error and second_error.")
    signs = known["outcome"].astype(int)
    others = {"reward_model": "reward_difference", "gold": "gold_difference"}
    if judge == REWARD_MODEL:
        del others["reward_model"]
    return {
        "judge": judge,
        "pairs": len(judged),
        "identical": int(judged["identical"].sum()),
        "without_verdict": int(judged["outcome"].isna().sum()),
        "errors": _errors(judged),
        "outcomes": outcomes_by_subset(signs, known["subset"].tolist(), params),
        "order": _order(judged, params.confidence) if "first_label" in judged else None,
        "length": length_report(signs, known["response"].str.len(), known["other"].str.len(), params),
        "agreement": {
            name: outcome_agreement(signs.tolist(), known[column].map(sign).tolist(), params.confidence)
            for name, column in others.items()
            if column in known
        },
    }


def _errors(judged: pd.DataFrame) -> dict[str, int]:
    columns = [column for column in ("first_error", "second_error") if column in judged]
    return dict(Counter(error for column in columns for error in judged[column].dropna()))


def _order(judged: pd.DataFrame, confidence: float) -> dict[str, Any] | None:
    """Over the pairs with a verdict in both orders: the same winner (or tie), opposite winners, and the pull of A."""
    both = judged.dropna(subset=["first_score", "second_score"])
    if both.empty:
        return None
    first, second = (both[f"{order}_score"].map(sign).astype(int) for order in ("first", "second"))
    order: dict[str, Any] = {"pairs": len(both)}
    order |= share("consistent", int((first == second).sum()), len(both), confidence)
    order |= share("contradictory", int((first * second < 0).sum()), len(both), confidence)
    labels = [label_score(label) for column in ("first_label", "second_label") for label in both[column]]
    order["prefers_a"] = None
    if decided := [score for score in labels if score]:
        order["prefers_a"] = share("share", sum(score > 0 for score in decided), len(decided), confidence)
    return order
