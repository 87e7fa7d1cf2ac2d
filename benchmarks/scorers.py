"""Ways to score preference rows with a reward model, each from the same texts to the same scores.

Texts are words that stand for random tokens, one word a token, so that lengths are those of real rows and nobody spends
time on splitting words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    pipeline,
)

from benchmarks.batches import PAD_ID, Row
from benchmarks.hh_lengths import MAX_LENGTH
from benchmarks.models import Shape, llama_config
from clha_core.padding import pad_right
from clha_core.scoring.score import RewardScorer

ROWS_PER_BATCH = 8
TOKENS_PER_BATCH = 1024
Texts = Sequence[Sequence[str]]  # of the candidates of each row


@dataclass(frozen=True)
class Scorer:
    """One way: the name as in the tables, and scores of all candidates in their order."""

    name: str
    score: Callable[[Texts], list[float]]


def reward_model(shape: Shape) -> LlamaForSequenceClassification:
    """A Llama with one logit; the same shape always gives the same weights."""
    torch.manual_seed(0)
    config = llama_config(shape, use_cache=False, num_labels=1)
    return LlamaForSequenceClassification(config).eval()


def word_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """The word 'tN' is the token N."""
    words = Tokenizer(models.WordLevel({f"t{token}": token for token in range(vocab_size)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=f"t{PAD_ID}", model_input_names=["input_ids", "attention_mask"]
    )


def texts_of(rows: Sequence[Row]) -> list[list[str]]:
    """Prompt and response of each candidate as one text."""
    return [[" ".join(f"t{token}" for token in row.prompt_ids + ids) for ids in row.response_ids] for row in rows]


def file_order(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> Scorer:
    """What is usually written: so many rows at a time in the order of the file, padded to the longest text."""
    model = reward_model(shape)

    def score(rows: Texts) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(rows), ROWS_PER_BATCH):
            batch = [text for row in rows[start : start + ROWS_PER_BATCH] for text in row]
            input_ids, attention_mask = pad_right(tokenizer(batch)["input_ids"], PAD_ID)
            scores += model(input_ids=input_ids, attention_mask=attention_mask).logits[:, 0].tolist()
        return scores

    return Scorer("file order", score)


def hf_pipeline(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> Scorer:
    """transformers' own pipeline at batch 1: no padding."""
    classify = pipeline(
        "text-classification",
        model=reward_model(shape),
        tokenizer=tokenizer,
        function_to_apply="none",
        batch_size=1,
        device="cpu",
    )
    return Scorer("pipeline", lambda rows: [one["score"] for one in classify([text for row in rows for text in row])])


def ours(shape: Shape, tokenizer: PreTrainedTokenizerFast, *, shared: bool = True) -> Scorer:
    """Ours, with prompts shared, or as for encoders: batches of similar lengths under the same budget."""
    model: PreTrainedModel = reward_model(shape)
    scorer = RewardScorer(
        model,
        pad_token_id=PAD_ID,
        tokens_per_batch=TOKENS_PER_BATCH,
        max_length=MAX_LENGTH,
        reading="last_token" if shared else "pooled",
    )

    def score(rows: Texts) -> list[float]:
        ids = iter(tokenizer([text for row in rows for text in row])["input_ids"])
        return [value for row in scorer.score([[next(ids) for _ in row] for row in rows]) for value in row]

    return Scorer("ours" if shared else "length-sorted", score)


def scorers(shape: Shape) -> list[Scorer]:
    """Who competes, each with a model of its own and the same weights."""
    tokenizer = word_tokenizer(shape.vocab_size)
    return [
        file_order(shape, tokenizer),
        hf_pipeline(shape, tokenizer),
        ours(shape, tokenizer, shared=False),
        ours(shape, tokenizer),
    ]
