"""What the raters' votes say about the two systems, and about the raters."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clha_core.assessment.key import Key, KeyItem
from clha_core.assessment.votes import SKIP, Ballot
from clha_core.errors import UserError
from clha_core.judging.agreement import cohen, fleiss, outcome_agreement
from clha_core.judging.labels import label_score, sign, system_score
from clha_core.judging.outcomes import outcome_measures, outcomes_by_subset, share
from clha_core.params import EvaluateParams

FIVE, THREE = (-2, -1, 0, 1, 2), (-1, 0, 1)


def assess(
    key: Key,
    ballots: Sequence[Ballot],
    params: EvaluateParams,
    *,
    verdicts: Path | None = None,
    tie_band: float = 0.0,
) -> dict[str, Any]:
    """Unblind the votes and count them.

    Kappas are computed on the labels as they were given (A, tie, B), so that a habit of preferring the first answer
    is chance, not agreement. The majority of an item is the outcome most raters chose; where two lead, it is a tie.

    Args:
        verdicts: the table of `clha judge` on the same answers.
        tie_band: reward differences of at most this size are ties, when the reward model is compared with the raters.

    Returns:
        What `clha assess import` writes as JSON; docs/assessment.md explains every figure.

    Raises:
        UserError: nobody chose anything but skip; verdicts about other systems or answers.
    """
    scores = {ballot.rater: _scores(ballot) for ballot in ballots}
    if not any(scores.values()):
        raise UserError("all votes are skips: there is nothing to count.")
    system_is_a = {item.item: item.a == key.system for item in key.items}
    majority, undecided = _majority(key, ballots, system_is_a)
    return {
        "export": key.export,
        "system": key.system,
        "against": key.against,
        "items": len(key.items),
        "identical": len(key.identical),
        "raters": {ballot.rater: _rater(ballot, len(key.items), system_is_a, params) for ballot in ballots},
        "majority": _outcomes(majority, key.items, params),
        "without_majority": undecided,
        # A pair of identical answers is a tie, whoever looks at it.
        "with_identical": outcome_measures([*majority.values(), *[0] * len(key.identical)], params),
        "cohen": [_cohen(a, b, scores) for a, b in combinations(scores, 2)],
        "fleiss": _fleiss(scores) if len(scores) > 2 else None,
        "agreement": _agreements(key, majority, params, verdicts, tie_band),
        "comments": [
            {"rater": ballot.rater, "item": item.item, "id": item.id, "comment": ballot.comments[item.item]}
            for ballot in ballots
            for item in key.items
            if item.item in ballot.comments
        ],
    }


def _scores(ballot: Ballot) -> dict[str, int]:
    """Labels as numbers, from 2 (A much better) to -2, by item; without skips."""
    return {item: label_score(vote) for item, vote in ballot.votes.items() if vote != SKIP}


def _rater(ballot: Ballot, items: int, system_is_a: Mapping[str, bool], params: EvaluateParams) -> dict[str, Any]:
    scores = _scores(ballot)
    figures: dict[str, Any] = {
        "votes": len(scores),
        "skipped": len(ballot.votes) - len(scores),
        "missing": items - len(ballot.votes),
        "repeated": ballot.repeated,
        "outcomes": None,
        "prefers_a": None,
    }
    if scores:
        signs = [sign(system_score(ballot.votes[item], system_is_a=system_is_a[item])) for item in scores]
        figures["outcomes"] = outcome_measures(signs, params)
    if decided := [score for score in scores.values() if score]:
        figures["prefers_a"] = share("share", sum(score > 0 for score in decided), len(decided), params.confidence)
    return figures


def _majority(key: Key, ballots: Sequence[Ballot], system_is_a: Mapping[str, bool]) -> tuple[dict[str, int], int]:
    """The raters' outcome of every item that has a vote, and how many of them are ties because two outcomes lead."""
    majority, undecided = {}, 0
    for item in (item.item for item in key.items):
        votes = [ballot.votes[item] for ballot in ballots if ballot.votes.get(item, SKIP) != SKIP]
        if not votes:
            continue
        counts = Counter(sign(system_score(vote, system_is_a=system_is_a[item])) for vote in votes)
        leaders = [outcome for outcome, count in counts.items() if count == max(counts.values())]
        undecided += len(leaders) > 1
        majority[item] = leaders[0] if len(leaders) == 1 else 0
    return majority, undecided


def _outcomes(majority: Mapping[str, int], items: Sequence[KeyItem], params: EvaluateParams) -> dict[str, Any]:
    subset = {item.item: item.subset for item in items}
    return outcomes_by_subset(list(majority.values()), [subset[item] for item in majority], params)


def _cohen(a: str, b: str, scores: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    common = [item for item in scores[a] if item in scores[b]]
    first, second = [scores[a][item] for item in common], [scores[b][item] for item in common]
    return {
        "raters": [a, b],
        "items": len(common),
        "three_way": cohen([sign(score) for score in first], [sign(score) for score in second], THREE),
        "five_way_weighted": cohen(first, second, FIVE, weighted=True),
    }


def _fleiss(scores: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    common = sorted(set.intersection(*(set(votes) for votes in scores.values())))
    votes = np.array([[sign(given[item]) for given in scores.values()] for item in common])
    return {"raters": len(scores), "items": len(common), "three_way": fleiss(votes)}


def _agreements(
    key: Key, majority: Mapping[str, int], params: EvaluateParams, verdicts: Path | None, tie_band: float
) -> dict[str, Any]:
    """How far the majority agrees with every judge that is known; all of them by item."""
    judged = [item for item in key.items if item.item in majority]
    others: dict[str, dict[str, int]] = {
        "reward_model": {
            item.item: sign(item.reward_difference, tie_band) for item in judged if item.reward_difference is not None
        },
        "gold": {item.item: sign(item.gold_difference) for item in judged if item.gold_difference is not None},
    }
    if verdicts is not None:
        outcomes = read_verdicts(verdicts, key)
        others["judge"] = {item.item: outcomes[item.pair] for item in judged if item.pair in outcomes}
        if not others["judge"]:
            raise UserError(f"{verdicts} has no verdict on any answer of this export: judge the same generations.")
    return {
        name: outcome_agreement([majority[item] for item in outcomes], list(outcomes.values()), params.confidence)
        for name, outcomes in others.items()
        if outcomes
    }


def read_verdicts(path: Path, key: Key) -> dict[str, int]:
    """Outcomes from the table of `clha judge`, by digest of the texts; pairs without a verdict are left out.

    Raises:
        UserError: no such file, not such a table, or one about other systems.
    """
    if not path.exists():
        raise UserError(f"{path} is not here: give --verdicts the table that `clha judge` wrote.")
    try:
        table = pd.read_parquet(path)[["pair", "outcome", "system", "against"]]
        table["outcome"] = table["outcome"].astype("Int8")
    except (OSError, ValueError, TypeError, LookupError) as error:  # pyarrow's own errors are of these
        raise UserError(f"{path} is not a table of verdicts ({error}): run `clha judge` again.") from None
    if {*table["system"], *table["against"]} != {key.system, key.against}:
        raise UserError(f"{path} does not compare {key.system} with {key.against}.")
    turned = -1 if table["system"].iloc[0] == key.against else 1
    known = table.dropna(subset="outcome")
    return {pair: turned * int(outcome) for pair, outcome in zip(known["pair"], known["outcome"], strict=True)}
