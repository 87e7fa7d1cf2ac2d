"""One world: data with so many flipped labels, its models, and what a training in it is worth."""

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np

from clha_core import paths
from clha_core.data.tables import read_rows
from clha_core.evaluation.evaluate import choose_rows, policy_and_prompts
from clha_core.evaluation.generation import Generation, generate_responses
from clha_core.evaluation.sampling import Sampling
from clha_core.params import Params
from clha_core.sample.gold import gold_reward
from clha_core.scoring.rater import evaluation_rater
from clha_core.stages import train as train_stage

# The pipeline's own stages up to where methods part.
STAGES = ("ingest", "policy", "reward_models", "sft", "candidates", "rescore")
SAMPLING_TEMPERATURE = 1.0
READY = "ready"


def prepare(params: Params, root: Path) -> None:
    """Make data, base, reward models, rewards and the SFT start below `root`, once."""
    if (root / READY).exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    (root / params.candidates.files).mkdir(parents=True)  # without files: candidates are those of the world
    if params.data.source == "local":
        own = root / params.data.path
        own.parent.mkdir(parents=True, exist_ok=True)
        own.symlink_to(Path(params.data.path).resolve())
    for stage in STAGES:
        import_module(f"clha_core.stages.{stage}").run(params, root)
    (root / READY).touch()


def train(params: Params, root: Path, tags: dict[str, str]) -> Path:
    """One training from the world's SFT model, one run in MLflow.

    Returns:
        The aligned model's folder.
    """
    out = root / paths.ALIGNED_MODEL
    shutil.rmtree(out, ignore_errors=True)
    # The start is the same for all methods that refer to it.
    train_stage.run(params, root, tags=tags, reference_cache=root / "reference")
    return out


class Judge:
    """Answers the prompts of a split with a policy, and says what the answers are worth.

    Args:
        split: test, or validation to pick settings by.
        prompts: how many, spread over the subsets.
    """

    def __init__(self, params: Params, root: Path, split: str, prompts: int) -> None:
        self._params = params
        self._rows = choose_rows(read_rows(root / paths.INGESTED / f"{split}.parquet"), prompts)
        self._rater = evaluation_rater(root / paths.EVAL_REWARD_MODEL, params.reward_model).load()

    def measure(self, folder: Path, *, sampled: bool) -> dict[str, np.ndarray]:
        """By measure, a value for each prompt: evaluation reward of greedy answers and their length in tokens; for the
        embedded sample also their gold reward, and that of answers sampled at temperature 1.
        """
        model, tokenizer, prompts = policy_and_prompts(folder, self._params.policy, self._rows)

        def answers(sampling: Sampling | None) -> list[Generation]:
            evaluate = self._params.evaluate
            return generate_responses(
                model,
                tokenizer,
                prompts,
                max_new_tokens=evaluate.max_new_tokens,
                batch_size=evaluate.batch_size,
                sampling=sampling,
                description=f"{folder.name}: answer",
            )

        greedy = answers(None)
        candidates = [
            {"id": row["id"], "prompt": row["prompt"], "responses": [answer.text]}
            for row, answer in zip(self._rows, greedy, strict=True)
        ]
        values = {
            "reward": [rewards[0] for rewards in self._rater.rate(candidates, f"{folder.name}: judge")],
            "tokens": [answer.tokens for answer in greedy],
        }
        if self._params.data.source == "sample":
            values["gold"] = self._gold(greedy)
        if sampled and "gold" in values:
            first = self._params.evaluate.seed
            sampling = Sampling(SAMPLING_TEMPERATURE, top_p=1.0, seeds=range(first, first + len(prompts)))
            values["sampled_gold"] = self._gold(answers(sampling))
        return {name: np.asarray(column, dtype=float) for name, column in values.items()}

    def _gold(self, answers: list[Generation]) -> list[float]:
        return [
            gold_reward(row["prompt"], answer.text, answer.finished)
            for row, answer in zip(self._rows, answers, strict=True)
        ]
