"""The comparison of two systems that answered the same prompts, whichever runs they come from. Pure computation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from clha_core.errors import UserError
from clha_core.evaluation.summary import (
    HUMAN,
    JUDGE,
    NOT_INDEPENDENT,
    RATED_TRAINING_DATA,
    gold_column,
    response_column,
    reward_column,
    summarise,
)
from clha_core.params import EvaluateParams

ALIGNED = "aligned"
A, B = "A", "B"

# What must be equal (evaluation.evaluate.protocol), and where it is set.
SET_BY = {
    "prompts": "the test prompts (data, evaluate.prompts)",
    "prompt_format": "policy.prompt_format",
    "max_prompt_length": "policy.max_prompt_length",
    "max_new_tokens": "evaluate.max_new_tokens",
    "judge": "the evaluation reward model (reward_model.eval_model)",
    "judge_text_format": "reward_model.eval_text_format",
    "judge_max_length": "reward_model.max_length",
    "judge_dtype": "reward_model.dtype",
    "generator": "evaluate.generator",
}
DIGESTS = ("prompts", "judge")


@dataclass(frozen=True)
class Evaluation:
    """What the stage `evaluate` left of one run."""

    name: str  # for readers
    generations: pd.DataFrame  # generations.parquet: one row per prompt, columns for each system
    protocol: Mapping[str, Any]  # protocol.json
    marked: bool  # judged by the reward model that rated the training data

    def systems(self) -> list[str]:
        """Who answered: base, sft, aligned, and the human of the data."""
        columns = map(str, self.generations.columns)
        answered = [column.removesuffix("_response") for column in columns if column.endswith("_response")]
        return [*answered, HUMAN]


@dataclass(frozen=True)
class Side:
    """One system of an evaluation.

    Raises:
        UserError: nobody of that name answered.
    """

    evaluation: Evaluation
    system: str = ALIGNED

    def __post_init__(self) -> None:
        if self.system not in self.evaluation.systems():
            raise UserError(
                f"{self.evaluation.name} has no answers of {self.system!r}; "
                f"after the colon stands one of: {', '.join(self.evaluation.systems())}."
            )

    @property
    def name(self) -> str:
        if self.system == ALIGNED:
            return self.evaluation.name
        owner = {HUMAN: "the human-chosen answers", "base": "the base", "sft": "the SFT"}.get(self.system, self.system)
        return f"{owner} of {self.evaluation.name}"

    def answers(self, called: str) -> pd.DataFrame:
        """Answers and rewards by prompt id, in columns that summarise() knows, for a system called `called`."""
        table = self.evaluation.generations.set_index("id")
        wanted = {
            response_column(self.system): response_column(called),
            reward_column(self.system): reward_column(called),
            gold_column(self.system): gold_column(called),
            f"{self.system}_finished": f"{called}_finished",
            f"{self.system}_prefers_chosen": f"{called}_prefers_chosen",
        }
        answers = table[[column for column in wanted if column in table]].rename(columns=wanted)
        return answers if self.system != HUMAN else answers.assign(**{f"{called}_finished": True})


@dataclass(frozen=True)
class Comparison:
    """Two sides, the table of both, and what it says: summarise() of the systems A and B."""

    a: Side
    b: Side
    table: pd.DataFrame
    metrics: dict[str, Any]

    def sentences(self) -> list[str]:
        """Who is who, and what a reader must know about the judge."""
        sentences = [f"A is {self.a.name}.", f"B is {self.b.name}."]
        if marked := [name for name, side in ((A, self.a), (B, self.b)) if side.evaluation.marked]:
            sentences.append(f"Not independent: the judge is {NOT_INDEPENDENT} of {' and '.join(marked)}.")
        return sentences


def compare(a: Side, b: Side, params: EvaluateParams) -> Comparison:
    """Measure both sides on every subset and in total, and the paired differences A - B.

    Args:
        params: confidence, resamples and seed of the intervals.

    Raises:
        UserError: the two were not evaluated alike, with what differs and where it is set.
    """
    require_same_protocol(a.evaluation, b.evaluation)
    columns = map(str, a.evaluation.generations.columns)
    shared = [column for column in columns if not _belongs_to_a_system(column, a.evaluation)]
    table = a.evaluation.generations[shared].join(b.answers(B), on="id").join(a.answers(A), on="id")
    metrics = summarise(table, [B, A], params)
    metrics[JUDGE] = {RATED_TRAINING_DATA: a.evaluation.marked or b.evaluation.marked}
    return Comparison(a, b, table, metrics)


def require_same_protocol(a: Evaluation, b: Evaluation) -> None:
    """Raises:
    UserError: prompts, judge, or how prompts are answered differ.
    """
    lines = [
        f"  {SET_BY.get(key, key)}"
        + ("" if key in DIGESTS else f": {a.protocol.get(key)} for {a.name}, {b.protocol.get(key)} for {b.name}")
        for key in sorted(a.protocol.keys() | b.protocol.keys())
        if a.protocol.get(key) != b.protocol.get(key)
    ]
    if lines:
        raise UserError(
            f"{a.name} and {b.name} were not evaluated alike, so that a difference would say nothing about the models. "
            "Not the same:\n"
            + "\n".join(lines)
            + "\nGet one of the two back (its page in the registry says how; for a "
            "DVC experiment `dvc exp apply NAME`), set these as the other has them, then `dvc repro evaluate`: it "
            "compares as `here`."
        )


def _belongs_to_a_system(column: str, evaluation: Evaluation) -> bool:
    return any(column.startswith(f"{system}_") for system in evaluation.systems() if system != HUMAN)
