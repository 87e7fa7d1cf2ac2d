"""Tables of verdicts: by a language model at an endpoint, which sees every pair in both orders, or by rewards."""

from typing import Any

import pandas as pd

from clha_core.endpoint import Answer, Endpoint, Request
from clha_core.errors import UserError
from clha_core.judging.criteria import criterion_of
from clha_core.judging.labels import sign, system_score
from clha_core.judging.prompt import Verdict, judge_messages, parse_verdict

REWARD_MODEL = "reward-model"
# In the first order the system's answer is A, in the second it is B.
ORDERS = {"first": True, "second": False}


def judge_by_endpoint(
    pairs: pd.DataFrame, endpoint: Endpoint, model: str, *, max_tokens: int, parse_retries: int
) -> tuple[pd.DataFrame, list[Answer]]:
    """Ask a model about every pair, in both orders, at temperature 0.

    Pairs of identical answers are ties and are not asked about. A pair is won if its two orders together say so: two
    wins, or a win and a tie; a win in one order and a loss in the other is a tie. A pair of which one order has no
    verdict (refused, not parsed, failed) has none.

    Args:
        pairs: what read_pairs() returns.
        model: as the endpoint calls it.
        max_tokens: of a reply.
        parse_retries: further tries for replies without a verdict.

    Returns:
        The pairs with the columns outcome (1 win, 0 tie, -1 lose, or missing), and for each order o (first, second)
        o_label, o_score (2 for the system much better, to -2), o_reason and o_error; and the answers, for their costs.

    Raises:
        UserError: the endpoint cannot be used, or gave not one verdict. What it said is kept: the next call goes on.
    """
    asked = pairs[~pairs["identical"]]
    requests = [
        _request(row, model, max_tokens, system_is_a)
        for row in asked.itertuples(index=False)
        for system_is_a in ORDERS.values()
    ]
    answers = (
        endpoint.complete(requests, parse_verdict, parse_retries=parse_retries, description="judge") if requests else []
    )
    judged = pairs.copy()
    for place, (order, system_is_a) in enumerate(ORDERS.items()):
        of_order = answers[place :: len(ORDERS)]
        verdicts: list[Verdict | None] = [answer.value for answer in of_order]
        columns: dict[str, list[Any]] = {
            "label": [verdict.label if verdict else None for verdict in verdicts],
            "score": [
                system_score(verdict.label, system_is_a=system_is_a) if verdict else None for verdict in verdicts
            ],
            "reason": [verdict.reason if verdict else None for verdict in verdicts],
            "error": [answer.error for answer in of_order],
        }
        for name, values in columns.items():
            dtype = "Int8" if name == "score" else "str"
            judged[f"{order}_{name}"] = pd.Series(values, index=asked.index, dtype=dtype)
    together = judged["first_score"].map(sign, na_action="ignore") + judged["second_score"].map(
        sign, na_action="ignore"
    )
    judged["outcome"] = together.map(sign, na_action="ignore").astype("Int8")
    judged.loc[judged["identical"], "outcome"] = 0
    return judged, answers


def judge_by_reward(pairs: pd.DataFrame, tie_band: float) -> pd.DataFrame:
    """Let the evaluation's reward model judge, offline: the higher reward wins.

    Args:
        pairs: what read_pairs() returns.
        tie_band: differences of at most this size are ties.

    Returns:
        The pairs with the column outcome.

    Raises:
        UserError: the pairs have no rewards.
    """
    if "reward_difference" not in pairs:
        raise UserError("the generations have no rewards: run the evaluate stage again, or judge with --model.")
    outcome = pairs["reward_difference"].map(lambda difference: sign(difference, tie_band)).astype("Int8")
    return pairs.assign(outcome=outcome)


def _request(row: Any, model: str, max_tokens: int, system_is_a: bool) -> Request:
    a, b = (row.response, row.other) if system_is_a else (row.other, row.response)
    messages = judge_messages(criterion_of(row.subset), row.prompt, a, b, mark=row.pair[:8])
    return Request(model, messages, max_tokens, temperature=0.0)
