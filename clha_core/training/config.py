"""CLHAConfig: transformers' TrainingArguments and what the methods need. Defaults are the paper's."""

from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments

from clha_core.errors import UserError

METHODS = ("clha", "sft", "pro")


@dataclass
class CLHAConfig(TrainingArguments):
    """Configuration of `CLHATrainer`.

    Attributes:
        method: the loss. clha; sft: likelihood of the best candidate alone; pro: PRO's ranking with the same SFT term.
        margin: CLHA's wanted log-prob difference per rank distance.
        reward_gap: CLHA masks pairs whose rewards differ by no more than this.
        sft_weight: alpha, the weight of the SFT term of clha and pro.
        logp_normalisation: what the contrastive term compares: log-probs averaged over tokens (the paper) or summed.
        prompt_format: HH's plain text, or the tokenizer's chat template.
        max_length: tokens of prompt and response together.
        max_prompt_length: tokens of prompt; longer ones lose their oldest tokens.
    """

    method: Literal["clha", "sft", "pro"] = field(default="clha", metadata={"help": "The loss."})
    margin: float = field(default=3.0, metadata={"help": "Wanted log-prob difference per rank distance."})
    reward_gap: float = field(default=3.0, metadata={"help": "Pairs closer in reward than this are masked."})
    sft_weight: float = field(default=0.05, metadata={"help": "Weight of the SFT term."})
    logp_normalisation: Literal["mean", "sum"] = field(
        default="mean", metadata={"help": "Log-probs per token or summed."}
    )
    prompt_format: Literal["hh", "chat_template"] = field(default="hh", metadata={"help": "How turns become text."})
    max_length: int = field(default=512, metadata={"help": "Tokens of prompt and response together."})
    max_prompt_length: int = field(default=384, metadata={"help": "Tokens of prompt."})
    # The collator needs columns that no model's forward names, so the Trainer must not drop them.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off."})
    # Where runs are recorded is chosen by a callback (clha_core.tracking), not found by what is installed.
    report_to: Any = field(default="none", metadata={"help": "Integrations of transformers to report to."})
    learning_rate: float = field(default=5e-6, metadata={"help": "Peak learning rate of AdamW."})
    num_train_epochs: float = field(default=2.0, metadata={"help": "Passes over the data."})

    def __post_init__(self) -> None:
        """Refuse what a typo or a habit would otherwise turn into another training than was meant."""
        super().__post_init__()
        for name, allowed in (
            ("method", METHODS),
            ("logp_normalisation", ("mean", "sum")),
            ("prompt_format", ("hh", "chat_template")),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(f"CLHAConfig: {name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}.")
        if self.remove_unused_columns:
            raise UserError("CLHAConfig: remove_unused_columns must stay off, the loss needs those columns.")
