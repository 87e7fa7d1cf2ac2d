"""Tiny models from nothing, for machines that cannot download any: a byte-level BPE and a Llama policy.

The policy learns to continue dialogues from all responses of the train split, good and bad: an unaligned base.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Trainer

from clha_core.models.bare_training import bare_arguments
from clha_core.padding import pad_right
from clha_core.params import PolicyParams
from clha_core.progress import show_figures_on_bar
from clha_core.tokenization import encode_row, framing_of, hh_prompt

PAD, EOS = "<pad>", "<eos>"


def train_tokenizer(rows: Iterable[Mapping[str, Any]], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE on prompts and responses: any text can be encoded, nothing is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (text for row in rows for text in (hh_prompt(row["prompt"]), *(" " + r for r in row["responses"])))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS)


def train_policy(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, params: PolicyParams
) -> LlamaForCausalLM:
    """Language modelling over whole dialogues, every candidate a text of its own.

    Returns:
        The trained model, on the CPU.
    """
    scratch = params.scratch
    texts = []
    framing = framing_of(tokenizer, "hh")
    for row in rows:
        encoded = encode_row(
            tokenizer,
            row["prompt"],
            row["responses"],
            prompt_format="hh",
            max_length=params.max_length,
            max_prompt_length=params.max_prompt_length,
            framing=framing,
        )
        texts += [encoded.prompt_ids + ids for ids in encoded.response_ids]
    torch.manual_seed(scratch.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=scratch.hidden_size,
            intermediate_size=8 * scratch.hidden_size // 3,  # Llama's own proportion
            num_hidden_layers=scratch.layers,
            num_attention_heads=scratch.heads,
            num_key_value_heads=scratch.heads,
            max_position_embeddings=max(2 * params.max_length, 256),
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        input_ids, attention_mask = pad_right([text["input_ids"] for text in batch], tokenizer.pad_token_id)
        labels = input_ids.masked_fill(attention_mask == 0, -100)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

    dataset = Dataset.from_dict({"input_ids": texts, "length": list(map(len, texts))})
    args = bare_arguments(
        max_steps=scratch.steps,
        batch_size=scratch.batch_size,
        learning_rate=scratch.learning_rate,
        seed=scratch.seed,
    )
    trainer = Trainer(model=model, args=args, train_dataset=dataset, data_collator=collate)
    show_figures_on_bar(trainer, "base policy")
    trainer.train()
    return model.cpu()
