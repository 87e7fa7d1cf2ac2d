"""Parameters of supervised fine-tuning and of the alignment."""

from typing import Literal

from pydantic import Field

from clha_core.params.section import Count, Section, Seed


class LoraParams(Section):
    """A low-rank adapter (peft) instead of all weights. The stage's model has it merged, and beside it as `adapter`."""

    rank: int = Field(ge=0, description="Rank of the adapter; 0 trains all weights.")
    alpha: float = Field(gt=0, description="The adapter counts alpha / rank times.")
    dropout: float = Field(ge=0, lt=1, description="Dropout in front of the adapter.")
    targets: str = Field(
        description="Layers that get an adapter: 'all-linear', or names joined by commas (q_proj,v_proj)."
    )


class OptimParams(Section):
    """What supervised fine-tuning and alignment share."""

    learning_rate: float = Field(gt=0, lt=1, description="Peak learning rate of AdamW.")
    epochs: float = Field(gt=0, description="Passes over the train split.")
    max_steps: int = Field(ge=0, description="Optimizer steps; 0 to let epochs decide.")
    rows_per_step: Count = Field(description="Rows of one optimizer step, over all processes.")
    tokens_per_micro_batch: int = Field(
        ge=8, description="Tokens in one forward pass, at most: bounds memory, changes neither steps nor curves."
    )
    warmup_share: float = Field(ge=0, lt=1, description="Share of the steps over which the learning rate rises.")
    lr_scheduler: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        description="How the learning rate goes on after its rise: down to 0 in a line or a cosine, or as it is."
    )
    weight_decay: float = Field(ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(ge=0, description="Gradients are clipped to this norm; 0 for no clipping.")
    eval_steps: Count = Field(description="Steps between looks at validation; each may become the best checkpoint.")
    early_stopping: int = Field(
        ge=0, description="Stop after this many looks at validation without a better one; 0 to go on to the end."
    )
    gradient_checkpointing: bool = Field(description="Recompute activations: slower, far less memory.")
    lora: LoraParams
    seed: Seed


class SFTParams(OptimParams):
    """Supervised fine-tuning on the human-chosen responses: the baseline, and where alignment may start."""


class TrainParams(OptimParams):
    """The alignment itself."""

    method: Literal["clha", "sft", "rrhf", "pro", "dpo", "ipo", "simpo", "orpo"] = Field(
        description="clha: this project's method; the others to compare with, on the same batches."
    )
    start_from: Literal["base", "sft"] = Field(description="The checkpoint that alignment starts from.")
    rewards: Literal["rescored", "labels"] = Field(
        description="What ranks the candidates: the reward model, or (ablation) the human labels alone."
    )
    margin: float = Field(ge=0, description="CLHA: wanted log-prob difference per rank distance (paper: 3).")
    reward_gap: float = Field(ge=0, description="CLHA: pairs with a smaller reward difference are masked (paper: 3).")
    reward_gap_quantile: float | None = Field(
        ge=0, le=1, description="CLHA: the gap as a quantile of the data's reward differences; empty to use reward_gap."
    )
    sft_weight: float = Field(ge=0, description="Weight of the SFT term of clha (paper: 0.05), pro and rrhf.")
    logp_normalisation: Literal["mean", "sum"] = Field(
        description="Log-probs compared by CLHA's contrastive term: per token (paper) or of the whole response."
    )
    reward_mask: bool = Field(description="CLHA: mask pairs of similar reward; off is an ablation.")
    scale_margin: bool = Field(description="CLHA: the margin grows with the rank distance; off is an ablation.")
    gate_sft: bool = Field(description="CLHA: do not imitate best answers rated <= 0; off is an ablation.")
    beta: float = Field(gt=0, description="DPO, IPO: tie to the start; SimPO: scale; ORPO: weight of the odds ratio.")
    simpo_gamma: float = Field(ge=0, description="SimPO: target margin times beta.")
