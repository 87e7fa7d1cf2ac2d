"""Models of random weights, made from a configuration: nothing is downloaded."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks.batches import PAD_ID
from benchmarks.hh_lengths import MAX_LENGTH


@dataclass(frozen=True)
class Shape:
    """A Llama with tied embeddings.

    Attributes:
        intermediate: width of the MLP; 8/3 of `hidden`, rounded up, is Llama's own proportion.
        heads, kv_heads: attention heads of queries, and of keys and values.
    """

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab_size: int


# By all parameters: with 32k tokens, embeddings are most of a small model.
CPU_SHAPES = {
    "7m-8k": Shape(256, 6, 688, 4, 4, 8192),
    "7m-32k": Shape(160, 6, 432, 5, 5, 32000),
    "34m-8k": Shape(512, 9, 1376, 8, 8, 8192),
    "34m-32k": Shape(448, 8, 1200, 7, 7, 32000),
}
TINY_SHAPE = Shape(32, 2, 96, 2, 2, 512)


def llama_config(shape: Shape, **options: Any) -> LlamaConfig:
    """The configuration of a shape; `options` are more of LlamaConfig's."""
    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2 * MAX_LENGTH,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=None,
        **options,
    )


def build(shape: Shape, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """A model in training mode; the same shape always gives the same weights."""
    torch.manual_seed(0)
    config = llama_config(shape, tie_word_embeddings=True)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    assert isinstance(model, LlamaForCausalLM)
    return model.train()


def body_parameters(model: LlamaForCausalLM) -> int:
    """Parameters without the (tied) embeddings."""
    return sum(parameter.numel() for parameter in model.model.layers.parameters()) + model.model.norm.weight.numel()


def embedding_parameters(model: LlamaForCausalLM) -> int:
    """Parameters of the embeddings, which are those of the head as well."""
    return model.model.embed_tokens.weight.numel()
