"""The numbers of an evaluation: what goes into metrics/evaluate.json."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from scipy.special import expit

from clha_core.errors import UserError
from clha_core.evaluation import metrics
from clha_core.params import EvaluateParams

TOTAL = "total"
HEADLINE = ("gold", "reward", "bleu")
HUMAN = "human"
# The part of metrics/evaluate.json that says who judged.
JUDGE = "judge"
RATED_TRAINING_DATA = "rated_training_data"
NOT_INDEPENDENT = "the reward model that rated the training data"
DIGITS = 6  # enough for every reader, and no diff from the last bit


def summarise(rows: pd.DataFrame, systems: Sequence[str], params: EvaluateParams) -> dict[str, Any]:
    """Measure every system on every subset and on all rows ("total"), and compare the systems pairwise.

    A total covers all rows alike, so a mean in it is the sample-weighted mean of the subsets.

    Args:
        rows: a row per test prompt with the columns id, subset, human_chosen (text), human_chosen_reward, and
            for every system s: s_response, s_finished, s_reward (raw logit of the evaluation reward model)
            and, where they are known, s_gold (gold reward) and s_prefers_chosen (whether its likelihood ranks the
            human-chosen response above the rejected one).
        systems: their names, in the order in which one was built on the other, for example base, sft, aligned.

    Returns:
        {system: {subset: {measure: value}}}, also for the system "human", and the same for comparisons named
        a_vs_b: every system with those before it, and the last one with the human.

    Raises:
        UserError: no rows, a missing column, a reward that is not a number, a subset called "total".
    """
    _check(rows, systems)

    def by_subset(measure: Callable[[pd.DataFrame], dict[str, float]]) -> dict[str, dict[str, float]]:
        groups = {str(name): group for name, group in rows.groupby("subset", sort=True)} | {TOTAL: rows}
        return {
            name: {key: round(float(value), DIGITS) for key, value in measure(group).items()}
            for name, group in groups.items()
        }

    summary: dict[str, Any] = {}
    for name in [*systems, HUMAN]:
        summary[name] = by_subset(lambda group, name=name: _system(group, name, params))  # type: ignore[misc]
    pairs = [(a, b) for place, a in enumerate(systems) for b in systems[:place]] + [(systems[-1], HUMAN)]
    for a, b in pairs:
        summary[f"{a}_vs_{b}"] = by_subset(lambda group, a=a, b=b: _comparison(group, a, b, params))  # type: ignore[misc]
    return summary


def headline(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of a summary, what fits on a line for each system: totals, without intervals."""
    *earlier, last = systems_of(dict(summary))
    found = {
        name: {measure: summary[name][TOTAL][measure] for measure in HEADLINE if measure in summary[name][TOTAL]}
        for name in (*earlier, last)
    }
    found[last] |= {f"win_rate_vs_{name}": summary[f"{last}_vs_{name}"][TOTAL]["win_rate"] for name in earlier}
    return found


def systems_of(summary: dict[str, Any]) -> list[str]:
    """The systems of a summary, each after those it was built on; also of one read back with sorted keys."""
    names = [name.removesuffix(f"_vs_{HUMAN}") for name in summary if name.endswith(f"_vs_{HUMAN}")]
    candidate = names[0]  # the one system that is compared with the human is compared with all the others, too
    others = [key.removeprefix(f"{candidate}_vs_") for key in summary if key.startswith(f"{candidate}_vs_")]
    built_on = {name: sum(f"{name}_vs_{other}" in summary for other in others) for name in others if name != HUMAN}
    return [*sorted(built_on, key=lambda name: built_on[name]), candidate]


def is_marked(summary: Mapping[str, Any]) -> bool:
    """Whether the judge is the reward model that rated the training data, so that its rewards flatter the policy."""
    return bool(summary.get(JUDGE, {}).get(RATED_TRAINING_DATA, False))


def reward_column(system: str) -> str:
    """Column of a system's evaluation reward; the human's is named after the chosen response."""
    return "human_chosen_reward" if system == HUMAN else f"{system}_reward"


def response_column(system: str) -> str:
    """Column of a system's answer."""
    return "human_chosen" if system == HUMAN else f"{system}_response"


def gold_column(system: str) -> str:
    """Column of a system's gold reward, which only generated data has."""
    return "human_chosen_gold" if system == HUMAN else f"{system}_gold"


def _system(group: pd.DataFrame, system: str, params: EvaluateParams) -> dict[str, float]:
    rewards, responses = group[reward_column(system)], group[response_column(system)]
    measures = {"prompts": float(len(group))}
    measures |= _interval("reward", metrics.bootstrap_interval(rewards, **_bootstrap(params)))
    measures["reward_sigmoid_x100"] = metrics.sigmoid_x100(rewards)
    measures["length_chars"] = float(responses.str.len().mean())
    if gold_column(system) in group:
        measures |= _interval("gold", metrics.bootstrap_interval(group[gold_column(system)], **_bootstrap(params)))
    if system != HUMAN:  # the human's answer is the reference of BLEU, and always finished
        references = group["human_chosen"].tolist()
        measures["bleu"] = metrics.corpus_bleu(responses.tolist(), references)
        measures["character_bleu_reference"] = metrics.character_bleu_reference(responses.tolist(), references)
        measures["finished_share"] = float(group[f"{system}_finished"].mean())
    if f"{system}_prefers_chosen" in group:
        preferred = group[f"{system}_prefers_chosen"].to_numpy(dtype=float)
        measures |= _interval("ranking_accuracy", metrics.bootstrap_interval(preferred, **_bootstrap(params)))
    return measures


def _comparison(group: pd.DataFrame, a: str, b: str, params: EvaluateParams) -> dict[str, float]:
    rewards_a, rewards_b = group[reward_column(a)], group[reward_column(b)]
    wins = metrics.win_rate(rewards_a, rewards_b, **_bootstrap(params))
    measures = {"win": wins.win, "tie": wins.tie, "lose": wins.lose}
    measures |= _interval("win_rate", wins.rate)
    measures |= _interval(
        "reward_difference",
        metrics.paired_bootstrap_difference(rewards_a, rewards_b, **_bootstrap(params)),
    )
    measures |= _interval(
        "reward_sigmoid_x100_difference",
        metrics.paired_bootstrap_difference(100 * expit(rewards_a), 100 * expit(rewards_b), **_bootstrap(params)),
    )
    if gold_column(a) in group and gold_column(b) in group:
        difference = metrics.paired_bootstrap_difference(
            group[gold_column(a)], group[gold_column(b)], **_bootstrap(params)
        )
        measures |= _interval("gold_difference", difference)
    return measures


def _interval(name: str, interval: metrics.Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _bootstrap(params: EvaluateParams) -> dict[str, Any]:
    return {"confidence": params.confidence, "samples": params.bootstrap_samples, "seed": params.seed}


def _check(rows: pd.DataFrame, systems: Sequence[str]) -> None:
    if not systems or HUMAN in systems:
        raise UserError(f"Systems to compare must have names other than {HUMAN!r}, got {list(systems)}.")
    if rows.empty:
        raise UserError("There is no answer to evaluate: the test split is empty, or evaluate.prompts too small.")
    per_system = [f"{s}_{part}" for s in systems for part in ("response", "finished", "reward")]
    missing = {"subset", "human_chosen", "human_chosen_reward", *per_system} - set(rows.columns)
    if missing:
        raise UserError(f"The generations lack the columns {sorted(missing)}: run the evaluate stage again.")
    numeric = [column for s in [*systems, HUMAN] for column in (reward_column(s), gold_column(s))]
    for column in [column for column in numeric if column in rows]:
        bad = ~rows[column].abs().lt(float("inf"))  # true for nan as well
        if bad.any():
            raise UserError(
                f"{int(bad.sum())} values of {column} are not finite, the first at id {rows['id'][bad].iloc[0]!r}: "
                "the model overflowed; evaluate it with dtype float32."
            )
    if TOTAL in set(rows["subset"]):
        raise UserError(f"A subset is called {TOTAL!r}, which is the name for all of them: rename its folder.")
