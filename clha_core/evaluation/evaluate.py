"""One table of test prompts, what each system answers, and what that is worth."""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clha_core.data.tables import labelled_pair
from clha_core.digest import folder_digest
from clha_core.evaluation.generation import Generation, generate_responses
from clha_core.evaluation.generation.served import ServedPolicy
from clha_core.models.loading import load_policy, load_tokenizer, on_device
from clha_core.packing.scorer import ResponseScorer
from clha_core.packing.trees import Tree, pack_trees
from clha_core.params import Params, PolicyParams
from clha_core.scoring.checks import check_scores
from clha_core.scoring.rater import evaluation_rater
from clha_core.tokenization import HH_GENERATION_PROMPT, encode_prompt, encode_row, hh_prompt


def choose_rows(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first rows of every subset in turn, each prompt once, until `count` are chosen."""
    by_subset: dict[str, list[dict[str, Any]]] = {}
    seen = set()
    for row in rows:
        prompt = hh_prompt(row["prompt"])
        if prompt not in seen:
            seen.add(prompt)
            by_subset.setdefault(row["subset"], []).append(row)
    chosen: list[dict[str, Any]] = []
    for rank in range(max(map(len, by_subset.values()))):
        chosen += [subset[rank] for subset in by_subset.values() if rank < len(subset)]
    return chosen[:count]


def policy_and_prompts(
    folder: Path, policy: PolicyParams, rows: list[dict[str, Any]]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[list[int]]]:
    """The policy in `folder`, ready to answer, its tokenizer, and the prompts of `rows` as it reads them."""
    model = on_device(load_policy(folder, dtype=policy.dtype, trust_remote_code=policy.trust_remote_code)).eval()
    tokenizer = load_tokenizer(folder, trust_remote_code=policy.trust_remote_code)
    prompts = [
        encode_prompt(tokenizer, row["prompt"], policy.prompt_format, policy.max_prompt_length)[0] for row in rows
    ]
    return model, tokenizer, prompts


def protocol(params: Params, table: pd.DataFrame, reward_folder: Path) -> dict[str, Any]:
    """What two evaluations must share to be compared: the prompts, how they are answered, and who judges."""
    judge = evaluation_rater(reward_folder, params.reward_model)
    prompts = hashlib.sha256("\0".join([*table["id"], *table["prompt"]]).encode()).hexdigest()
    return {
        "prompts": prompts,
        "prompt_format": params.policy.prompt_format,
        "max_prompt_length": params.policy.max_prompt_length,
        "max_new_tokens": params.evaluate.max_new_tokens,
        "judge": folder_digest(reward_folder),
        "judge_text_format": judge.text_format,
        "judge_max_length": judge.max_length,
        "judge_dtype": judge.dtype,
        **({} if params.evaluate.generator == "transformers" else {"generator": params.evaluate.generator}),
    }


class Evaluator:
    """Collects answers and rewards, system by system; only one policy is in memory at a time.

    Args:
        params: all parameters.
        rows: ingested test rows.
        reward_folder: the evaluation reward model.
        kept: folder in which answers of servers outlive the process.
    """

    def __init__(self, params: Params, rows: list[dict[str, Any]], reward_folder: Path, kept: Path) -> None:
        self.params = params
        self.kept = kept
        self.rows = rows
        self.rater = evaluation_rater(reward_folder, params.reward_model).load()
        self.columns: dict[str, list[Any]] = {
            "id": [row["id"] for row in rows],
            "subset": [row["subset"] for row in rows],
            "prompt": [hh_prompt(row["prompt"]).removesuffix(HH_GENERATION_PROMPT).strip() for row in rows],
            "human_chosen": [labelled_pair(row)[0] for row in rows],
        }
        self._judge("human_chosen", self.columns["human_chosen"], [True] * len(rows))

    def add_system(self, name: str, folder: Path) -> None:
        """Let the policy in `folder` answer every prompt, judge the answers, and see which label it finds likelier."""
        model, tokenizer, prompts = policy_and_prompts(folder, self.params.policy, self.rows)
        answers = self._answers(name, folder, model, tokenizer, prompts)
        finished = [answer.finished for answer in answers]
        self.columns[f"{name}_response"] = [answer.text for answer in answers]
        self.columns[f"{name}_finished"] = finished
        self._judge(name, self.columns[f"{name}_response"], finished)
        self.columns[f"{name}_prefers_chosen"] = self._prefers_chosen(name, model, tokenizer)

    def table(self) -> pd.DataFrame:
        """One row per prompt: `<system>_response`, `_finished`, `_reward`, `_prefers_chosen`, on the sample `_gold`."""
        return pd.DataFrame(self.columns)

    def _answers(
        self, name: str, folder: Path, model: Any, tokenizer: Any, prompts: list[list[int]]
    ) -> list[Generation]:
        evaluate, description = self.params.evaluate, f"{name}: answer"
        if evaluate.generator == "endpoint":
            served = ServedPolicy(
                folder,
                self.kept,
                concurrency=evaluate.batch_size,
                trust_remote_code=self.params.policy.trust_remote_code,
            )
            return served.generate(prompts, max_new_tokens=evaluate.max_new_tokens, description=description)
        return generate_responses(
            model,
            tokenizer,
            prompts,
            max_new_tokens=evaluate.max_new_tokens,
            batch_size=evaluate.batch_size,
            description=description,
        )

    def _judge(self, name: str, responses: list[str], finished: list[bool]) -> None:
        rated = self.rater.rate(
            [
                {"id": row["id"], "prompt": row["prompt"], "responses": [text]}
                for row, text in zip(self.rows, responses, strict=True)
            ],
            f"{name}: judge",
        )
        check_scores(rated, self.columns["id"])
        self.columns[f"{name}_reward"] = [rewards[0] for rewards in rated]
        if self.params.data.source == "sample":
            from clha_core.sample.gold import gold_reward

            self.columns[f"{name}_gold"] = [
                gold_reward(row["prompt"], text, done)
                for row, text, done in zip(self.rows, responses, finished, strict=True)
            ]

    @torch.inference_mode()
    def _prefers_chosen(self, name: str, model: Any, tokenizer: Any) -> list[bool]:
        """Whether the human-chosen response of each row has the higher mean log-prob."""
        policy = self.params.policy
        trees = []
        for row in self.rows:
            encoded = encode_row(
                tokenizer,
                row["prompt"],
                labelled_pair(row),
                prompt_format=policy.prompt_format,
                max_length=policy.max_length,
                max_prompt_length=policy.max_prompt_length,
            )
            trees.append(Tree(encoded.prompt_ids, encoded.response_ids))
        scorer = ResponseScorer(model, "auto", max(tree.tokens for tree in trees))
        preferred: list[bool] = []
        batch_size = self.params.evaluate.batch_size
        for start in tqdm(range(0, len(trees), batch_size), desc=f"{name}: rank labels"):
            batch = trees[start : start + batch_size]
            pack = pack_trees(batch).to(model.device)
            means = scorer.sums(model, batch, pack) / pack.lengths
            chosen, rejected = means.view(-1, 2).unbind(dim=1)
            preferred += (chosen > rejected).tolist()
        return preferred
