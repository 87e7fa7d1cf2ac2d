"""Ways to answer prompts greedily, each from the same token ids to the same texts.

Random weights never end an answer. So the model here ends one by chance: what its newest token is and where it stands
decide, in one case of 42, which is the mean length of HH's chosen responses. Such lengths are spread as HH's are: 42 +-
41 tokens where HH has 42 +- 38, 5 % of them beyond 128 tokens where HH has 4 %. All other tokens are the model's own.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.modeling_outputs import CausalLMOutputWithPast

from benchmarks.batches import PAD_ID
from benchmarks.hh_lengths import read_lengths
from benchmarks.models import Shape, llama_config
from benchmarks.scorers import word_tokenizer
from clha_core.evaluation.generation import Generation, generate_responses
from clha_core.evaluation.generation.decoding import Decoding, pad_left
from clha_core.evaluation.generation.endings import ROLE_MARKERS, Endings
from clha_core.evaluation.generation.whole_batches import whole_batches

EOS_ID = 1
BATCH_SIZE, MAX_NEW_TOKENS = 28, 128  # the paper's reference evaluation
MEAN_TOKENS = 42
Prompts = Sequence[list[int]]


@dataclass(frozen=True)
class Generator:
    """One way: the name as in the tables, and answers in the order of the prompts."""

    name: str
    answer: Callable[[Prompts], list[Generation]]


class EndingLlama(LlamaForCausalLM):
    """A Llama that ends answers by chance, the same ones in whatever batch they are."""

    def forward(
        self, input_ids: Tensor | None = None, position_ids: Tensor | None = None, **options: Any
    ) -> CausalLMOutputWithPast:
        output = super().forward(input_ids=input_ids, position_ids=position_ids, **options)
        assert input_ids is not None
        assert position_ids is not None
        ends = (input_ids * 7919 + position_ids * 104_729) % 1_000_003 % MEAN_TOKENS == 0
        kept = output.logits.shape[1]
        output.logits[..., EOS_ID].masked_fill_(ends[:, -kept:], torch.inf)
        return output


def policy(shape: Shape) -> EndingLlama:
    """The same shape always gives the same weights; with larger ones than usual a random model does not say one token
    for ever."""
    torch.manual_seed(0)
    return EndingLlama(llama_config(shape, tie_word_embeddings=True, initializer_range=0.15)).eval()


def prompts_of_hh(count: int, vocab_size: int) -> list[list[int]]:
    """Random tokens. Their lengths are evenly spaced quantiles of those of HH's prompts, in random order."""
    chance = random.Random(0)
    ids = range(EOS_ID + 1, vocab_size)
    lengths = sorted(row.prompt for row in read_lengths(2))
    spaced = [lengths[int((index + 0.5) * len(lengths) / count)] for index in range(count)]
    return [chance.choices(ids, k=length) for length in chance.sample(spaced, count)]


def endings_of(tokenizer: PreTrainedTokenizerFast) -> Endings:
    """What ends an answer."""
    return Endings(tokenizer, [EOS_ID], ROLE_MARKERS)


def _cut(endings: Endings, ids: list[int]) -> Generation:
    """What is of use in generated ids: up to the EOS, the text up to a marker."""
    end = ids.index(EOS_ID) + 1 if EOS_ID in ids else None
    return endings.generation(ids[:end], finished=end is not None)


def plain(model: Any, endings: Endings, tokens: int) -> Generator:
    """What is usually written: batches in the order of the file, padded to the left; the text is cut afterwards."""
    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=PAD_ID, eos_token_id=EOS_ID)

    def answer(prompts: Prompts) -> list[Generation]:
        found = []
        for start in range(0, len(prompts), BATCH_SIZE):
            input_ids, attention_mask = pad_left(prompts[start : start + BATCH_SIZE], PAD_ID)
            output: Any = model.generate(input_ids, attention_mask=attention_mask, generation_config=config)
            found += [_cut(endings, ids) for ids in output[:, input_ids.shape[1] :].tolist()]
        return found

    return Generator("plain generate", answer)


def length_sorted(model: EndingLlama, endings: Endings, tokens: int) -> Generator:
    """Batches of similar length, of which each ends with its last answer: how ours treats models without slots."""

    def answer(prompts: Prompts) -> list[Generation]:
        found = dict(whole_batches(model, prompts, Decoding(endings, tokens, BATCH_SIZE, None, PAD_ID)))
        return [found[index] for index in range(len(prompts))]

    return Generator("length-sorted", answer)


def hf_continuous(model: Any, endings: Endings, tokens: int) -> Generator:
    """transformers' own continuous batching. Left to itself it takes most of the memory, and minutes to fill it."""
    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=PAD_ID, eos_token_id=EOS_ID)

    def answer(prompts: Prompts) -> list[Generation]:
        page = 64
        pages = -(-(max(map(len, prompts)) + tokens) // page)
        batching = ContinuousBatchingConfig(
            page_size=page, num_blocks=pages * BATCH_SIZE, max_batch_tokens=1024, max_requests_per_batch=BATCH_SIZE
        )
        # Its requests are numbered in the order of the prompts.
        outputs = model.generate_batch(
            list(prompts), generation_config=config, continuous_batching_config=batching, warmup=False
        )
        by_number = sorted(outputs.values(), key=lambda output: int(output.request_id.rpartition("_")[2]))
        return [_cut(endings, list(output.generated_tokens)) for output in by_number]

    return Generator("generate_batch", answer)


def ours(model: EndingLlama, tokenizer: PreTrainedTokenizerFast, tokens: int) -> Generator:
    """Ours."""
    return Generator(
        "ours",
        lambda prompts: generate_responses(
            model, tokenizer, prompts, max_new_tokens=tokens, batch_size=BATCH_SIZE, description=None
        ),
    )


def generators(shape: Shape, tokens: int) -> list[Generator]:
    """Who competes, ours last; a model keeps nothing of an answer, so they share one."""
    model, tokenizer = policy(shape), word_tokenizer(shape.vocab_size)
    tokenizer.eos_token = f"t{EOS_ID}"
    endings = endings_of(tokenizer)
    return [
        plain(model, endings, tokens),
        length_sorted(model, endings, tokens),
        hf_continuous(model, endings, tokens),
        ours(model, tokenizer, tokens),
    ]
