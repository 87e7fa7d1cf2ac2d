"""Reward models that are known by name: what text they read, where their score is, in which precision they run.

An entry only fills in what params.yaml leaves open (`text_format: auto`, `dtype: auto`, an empty `max_length`). A model
without an entry works as well, with all three set.
"""

import logging
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, Literal

from clha_core.errors import UserError
from clha_core.params import TRAIN

TextFormat = Literal["hh", "oasst", "chat_template", "question_answer"]
Reading = Literal["last_token", "pooled"]
AUTO = "auto"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewardModelEntry:
    """How one family of reward models is used.

    Attributes:
        models: hub ids, `*` stands for anything; a local folder is matched by its own name.
        text_format: see `clha_core.scoring.text_formats`, which says too what is cut from a text that is too long.
        max_length: tokens that the model reads.
        dtype: of its weights.
        head: name of the module that makes the score; a checkpoint without it is another model. None: not checked.
        reading: last_token: the score comes from the last real token of a causal model, so candidates can share their
            prompt; pooled: from an encoder.
    """

    models: tuple[str, ...]
    text_format: TextFormat
    max_length: int
    dtype: Literal["float32", "bfloat16", "float16"]
    head: str | None
    reading: Reading


ENTRIES = (
    RewardModelEntry((TRAIN,), "hh", 512, "float32", "score", "last_token"),
    # The paper's two: GPT-NeoX bodies, a head with a bias (config.model_type is gpt_neox_reward_model).
    RewardModelEntry(
        ("OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5", "OpenAssistant/oasst-rm-2-pythia-6.9b-epoch-1"),
        "oasst",
        1024,
        "bfloat16",
        "out_proj",
        "last_token",
    ),
    # DeBERTa's attention overflows in half precision.
    RewardModelEntry(
        ("OpenAssistant/reward-model-deberta-v3-large-v2",), "question_answer", 512, "float32", "classifier", "pooled"
    ),
    RewardModelEntry(
        ("Skywork/Skywork-Reward-V2-*", "Skywork/Skywork-Reward-Llama-3.1-8B*"),
        "chat_template",
        4096,
        "bfloat16",
        "score",
        "last_token",
    ),
    RewardModelEntry(
        ("weqweasdas/RM-Mistral-7B", "weqweasdas/RM-Gemma-*", "sfairXC/FsfairX-LLaMA3-RM-v0.1"),
        "chat_template",
        4096,
        "bfloat16",
        "score",
        "last_token",
    ),
)


def find_entry(model: str) -> RewardModelEntry | None:
    """The entry of a hub id or of a folder, by its name; None where there is none."""
    name = PurePosixPath(model).name
    for entry in ENTRIES:
        if any(fnmatchcase(model, known) or fnmatchcase(name, PurePosixPath(known).name) for known in entry.models):
            return entry
    return None


def resolve(model: str, *, text_format: str, max_length: int | None, dtype: str) -> RewardModelEntry:
    """How to use a model: its entry, with what the parameters set laid over it.

    Args:
        model: 'train', a folder or a hub id.
        text_format, dtype: `auto` leaves them to the entry.
        max_length: None leaves it to the entry.

    Raises:
        UserError: something is left to an entry that is not there.
    """
    given: dict[str, Any] = {
        "text_format": None if text_format == AUTO else text_format,
        "max_length": max_length,
        "dtype": None if dtype == AUTO else dtype,
    }
    entry = find_entry(model)
    if entry is None:
        if missing := [f"reward_model.{name}" for name, value in given.items() if value is None]:
            known = ", ".join(known for entry in ENTRIES for known in entry.models)
            raise UserError(
                f"{model!r} is not among the reward models that are known by name ({known}): set {', '.join(missing)}. "
                "Text formats are hh, oasst, chat_template and question_answer: see docs/reward-models.md, "
                "and the model's card which one it was trained with."
            )
        reading: Reading = "pooled" if text_format == "question_answer" else "last_token"
        entry = RewardModelEntry((model,), "hh", 0, "float32", head=None, reading=reading)
    elif text_format not in (AUTO, entry.text_format):
        logger.warning("%s reads the text format %s, and gets %s as set.", model, entry.text_format, text_format)
    return replace(entry, **{name: value for name, value in given.items() if value is not None})
