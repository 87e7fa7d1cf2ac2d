"""Tiny checkpoints in the formats of the real ones, made on the spot: random weights, a few thousand parameters."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from clha_core.models.gpt_neox_reward import GPTNeoXRewardConfig, GPTNeoXRewardModel

TEXT = (
    "\n\nHuman: How often should I water my basil?\n\nAssistant: You should water basil twice a week. "
    "I hope that helps! Please don't. A cat sat on the mat; it was 42 years old."
)
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def tokenizer(
    *, pad: str | None = "<pad>", eos: str = "<eos>", chat: bool = False, pairs: bool = False, bos: str | None = None
) -> PreTrainedTokenizerFast:
    """A byte-level BPE; with `pad` equal to `eos` the two share an id.

    `pairs` adds BERT's [CLS] A [SEP] B [SEP]; `bos` puts that token in front of every text and of every chat.
    """
    special = [token for token in dict.fromkeys((pad, eos, bos, "<|im_start|>", "<|im_end|>")) if token]
    special += ["<|prompter|>", "<|assistant|>", "[CLS]", "[SEP]"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([TEXT], trainer)
    if pairs:
        bpe.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[(token, bpe.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
        )
    if bos:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, bpe.token_to_id(bos))]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=eos, pad_token=pad, bos_token=bos, cls_token="[CLS]", sep_token="[SEP]"
    )
    if chat:
        made.chat_template = ("{{ bos_token }}" if bos else "") + CHAT_TEMPLATE
    return made


def sentencepiece_like_tokenizer(prepend: str = "always") -> PreTrainedTokenizerFast:
    """A BPE that puts a visible space in front of every text and of every word, as LLaMA's does."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    bpe.decoder = decoders.Metaspace(prepend_scheme=prepend)
    special = ["<unk>", "<eos>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    bpe.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", unk_token="<unk>")


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE that knows no words: its tokens reach over the end of HH's prompt and of CHAT_TEMPLATE's."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    special = ["<unk>", "<eos>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    bpe.train_from_iterator(["Assistant: You should", "assistant\nYou should"] * 20 + [TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", unk_token="<unk>")


def _sizes(made: PreTrainedTokenizerFast) -> dict[str, int | None]:
    return {
        **SIZES,
        "vocab_size": len(made),
        "pad_token_id": made.pad_token_id,
        "eos_token_id": made.eos_token_id,
        "bos_token_id": None,
    }


def llama(made: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**_sizes(made), num_key_value_heads=2)).eval()


def qwen2(made: PreTrainedTokenizerFast, seed: int = 0) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(Qwen2Config(**_sizes(made), num_key_value_heads=2)).eval()


def causal_lm(architecture: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A causal language model of any architecture (a `model_type` of transformers) over 64 token ids.

    Its weights are large enough for attention to matter: with the usual small ones every token is about as likely.
    """
    sizes = {**SIZES, "vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    sizes |= {"initializer_range": 0.15, "max_position_embeddings": 256}
    if architecture != "gpt_neox":
        sizes |= {"num_key_value_heads": 2, "head_dim": 8}
    config = AutoConfig.for_model(architecture, **(sizes | changes))
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def reward_model(architecture: str, made: PreTrainedTokenizerFast | None = None, **changes: Any) -> PreTrainedModel:
    """A reward model of any architecture (a `model_type`), over a tokenizer's ids or over 64 of them, in training mode.

    As in `causal_lm`, weights are large; dropout is on where the architecture has it.
    """
    sizes = _sizes(made) if made else {**SIZES, "vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1}
    sizes |= {"initializer_range": 0.15, "max_position_embeddings": 256, "num_labels": 1}
    if "gpt_neox" in architecture:
        sizes |= {"hidden_dropout": 0.3, "attention_dropout": 0.3}
    elif architecture == "deberta-v2":
        sizes |= {"type_vocab_size": 0, "hidden_dropout_prob": 0.3, "relative_attention": True}
        sizes |= {"pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    else:
        sizes |= {"num_key_value_heads": 2, "head_dim": 8, "attention_dropout": 0.3}
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **(sizes | changes))
    return AutoModelForSequenceClassification.from_config(config).train()


def llama_reward(made: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForSequenceClassification:
    torch.manual_seed(seed)
    return LlamaForSequenceClassification(LlamaConfig(**_sizes(made), num_key_value_heads=2, num_labels=1)).eval()


def qwen2_reward(made: PreTrainedTokenizerFast, seed: int = 0) -> Qwen2ForSequenceClassification:
    torch.manual_seed(seed)
    return Qwen2ForSequenceClassification(Qwen2Config(**_sizes(made), num_key_value_heads=2, num_labels=1)).eval()


def gpt_neox_reward(made: PreTrainedTokenizerFast, seed: int = 0) -> GPTNeoXRewardModel:
    torch.manual_seed(seed)
    return GPTNeoXRewardModel(GPTNeoXRewardConfig(**_sizes(made), max_position_embeddings=256)).eval()


def deberta_reward(made: PreTrainedTokenizerFast, seed: int = 0) -> DebertaV2ForSequenceClassification:
    torch.manual_seed(seed)
    config = DebertaV2Config(**_sizes(made), num_labels=1, max_position_embeddings=256, type_vocab_size=0)
    return DebertaV2ForSequenceClassification(config).eval()


def save(model: PreTrainedModel, made: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a checkpoint folder with model and tokenizer."""
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def random_rows(count: int, n: int = 2, seed: int = 0) -> list[dict]:
    """Rescored rows of different lengths, candidates ranked by reward."""
    generator = torch.Generator().manual_seed(seed)
    words = TEXT.split()

    def text(longest: int) -> str:
        length = int(torch.randint(1, longest, (1,), generator=generator))
        return " ".join(words[int(i)] for i in torch.randint(0, len(words), (length,), generator=generator))

    return [
        {
            "id": f"tiny/train/{index:06d}",
            "subset": "tiny",
            "prompt": [{"role": "user", "content": text(12)}],
            "responses": [text(9) for _ in range(n)],
            "sources": ["chosen", "rejected", *["augmented"] * (n - 2)],
            "origins": ["data"] * n,
            "rewards": sorted(torch.randn(n, generator=generator).mul(3).tolist(), reverse=True),
        }
        for index in range(count)
    ]
