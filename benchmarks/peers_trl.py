"""TRL's own code (version 1.16.0), in batches grouped by length and without what the Trainer does around a step.

`trl cpo` is CPOTrainer with the SimPO loss and otherwise its defaults: its own compute_loss on batches of its own
collator, chosen and rejected in one padded block, logits at every position, the NLL of the chosen response beside the
preference loss, as CLHA has one.

`trl chunked` is the fastest path for a policy alone in the package: the head of `add_fused_lm_head`, which DPOTrainer
and GRPOTrainer use, over DPOTrainer's collator (its padding_free is switched off in this version). On a GPU that head
scores response positions only; on a CPU it scores every position, so its kernel, ChunkedLogProbFunction, is called here
as the GPU branch does. The loss on top is CLHA's: CPOTrainer has no such path, and DPO's loss needs a reference model.
"""

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from benchmarks.batches import PAD_ID, Row
from benchmarks.contestant import Contestant
from benchmarks.hh_lengths import MAX_LENGTH
from clha_core import clha_loss


def cpo_trainer(model: LlamaForCausalLM) -> CPOTrainer:
    """TRL's trainer around `model`, over one row: it refuses to be made without data."""
    words = Tokenizer(models.WordLevel({"<pad>": PAD_ID, "<eos>": 1, "a": 2}, unk_token="<eos>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    on_gpu = model.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        return CPOTrainer(
            model=model,
            args=CPOConfig(
                output_dir=folder,
                loss_type="simpo",
                max_length=MAX_LENGTH,
                use_cpu=not on_gpu,
                bf16=False,
                gradient_checkpointing=False,
                remove_unused_columns=False,
                disable_tqdm=True,
                report_to="none",
            ),
            train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "a", "rejected": "a a"}]),
            processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>"),
        )


def cpo_features(rows: Sequence[Row]) -> list[dict[str, list[int]]]:
    """Rows as CPOTrainer.tokenize_row leaves them."""
    features = []
    for row in rows:
        feature = {"prompt_input_ids": row.prompt_ids, "prompt_attention_mask": [1] * len(row.prompt_ids)}
        for side, response in zip(("chosen", "rejected"), row.response_ids, strict=True):
            feature[f"{side}_input_ids"] = row.prompt_ids + response
            feature[f"{side}_attention_mask"] = [1] * (len(row.prompt_ids) + len(response))
            feature[f"{side}_labels"] = [-100] * len(row.prompt_ids) + response
        features.append(feature)
    return features


def cpo(model: LlamaForCausalLM) -> Contestant:
    """CPOTrainer's step with the SimPO loss."""
    trainer = cpo_trainer(model)

    def loss(batch: dict[str, Any]) -> Tensor:
        computed = trainer.compute_loss(model, batch)
        assert isinstance(computed, Tensor)
        return computed

    def collate(rows: Sequence[Row]) -> Any:
        return to_device(trainer.data_collator(cpo_features(rows)), model.device)

    return Contestant("trl cpo", model, collate, loss, length_grouped=True)


def chunked(model: LlamaForCausalLM) -> Contestant:
    """TRL's chunked log-probs at response positions under CLHA's loss, pairs only."""
    collator = DataCollatorForPreference(pad_token_id=PAD_ID)

    def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
        pairs = [
            {"prompt_ids": row.prompt_ids, "chosen_ids": row.response_ids[0], "rejected_ids": row.response_ids[1]}
            for row in rows
        ]
        batch = {**collator(pairs), "rewards": torch.tensor([row.rewards for row in rows])}
        return to_device(batch, model.device)

    return Contestant("trl chunked", model, collate, lambda batch: chunked_loss(model, batch), length_grouped=True)


def chunked_loss(model: LlamaForCausalLM, batch: Mapping[str, Tensor]) -> Tensor:
    """The body of `add_fused_lm_head`'s forward on a GPU, for models without its special cases, then CLHA's loss."""
    hidden = model.model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state[:, :-1]
    mask = batch["completion_mask"][:, 1:].bool()
    picked, *_ = ChunkedLogProbFunction.apply(
        hidden[mask],
        model.lm_head.weight,
        None,
        batch["input_ids"][:, 1:][mask],
        1.0,
        _CHUNKED_LOGPROB_CHUNK_SIZE,
        None,
        1.0,
        ("log_probs",),
    )
    logps = picked.new_zeros(mask.shape).masked_scatter(mask, picked)
    # DataCollatorForPreference puts all chosen sequences before all rejected ones.
    sums = torch.stack(logps.sum(-1).chunk(2), 1)
    counts = torch.stack(mask.sum(-1).chunk(2), 1)
    return clha_loss(sums / counts, sums, batch["rewards"]).total


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on `device`, as a trainer's _prepare_inputs does."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
