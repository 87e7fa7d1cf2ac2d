"""Parameters of the models: the policy to align and the reward models."""

from typing import Literal

from pydantic import Field, model_validator

from clha_core.params.section import Count, Section, Seed

TRAIN = "train"  # in place of a reward model's name: it is trained here


class ScratchParams(Section):
    """A tiny Llama trained from nothing on the ingested dialogues (used where a model is 'scratch')."""

    vocab_size: int = Field(ge=300, description="Byte-level BPE tokens, trained on the train split.")
    hidden_size: int = Field(ge=16, description="Width; divisible by the number of heads.")
    layers: Count = Field(description="Transformer layers.")
    heads: Count = Field(description="Attention heads of a layer.")
    steps: Count = Field(description="Language-modelling steps of the base policy.")
    batch_size: Count = Field(description="Texts of one step.")
    learning_rate: float = Field(gt=0, description="Peak learning rate of AdamW.")
    seed: Seed


class PolicyParams(Section):
    """The model to align."""

    model: str = Field(
        description="'scratch', a local checkpoint folder, or a hub id such as Qwen/Qwen2.5-0.5B-Instruct."
    )
    revision: str | None = Field(
        description="Commit, tag or branch on the hub; it is pinned to a commit when resolved."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        description="Precision of the computation; weights that are trained stay in float32."
    )
    trust_remote_code: bool = Field(
        description="Run model code from the hub. Leave off unless you have read that code."
    )
    prompt_format: Literal["hh", "chat_template"] = Field(
        description="hh: '\\n\\nHuman: ... \\n\\nAssistant:'; chat_template: the tokenizer's own."
    )
    quantization: Literal["none", "nf4"] = Field(
        description="nf4: load in four bits (QLoRA; needs an adapter, a GPU and the package bitsandbytes)."
    )
    max_length: int = Field(ge=8, description="Tokens of prompt and response together.")
    max_prompt_length: int = Field(ge=4, description="Tokens of prompt; longer ones lose their oldest tokens.")
    scratch: ScratchParams


class RewardTrainParams(Section):
    """Bradley-Terry training, from the base policy's weights, of the reward models that are 'train'."""

    folds: Count = Field(
        description="Models that share the rating of the training data, so that none rates a label that it has learned "
        "from; 1 for a single model, which does."
    )
    epochs: float = Field(gt=0, description="Passes over the labels that a model learns from.")
    max_steps: int = Field(ge=0, description="Optimizer steps of each model; 0 to let epochs decide.")
    rows_per_step: Count = Field(description="Labelled pairs of one optimizer step.")
    rows_per_micro_batch: Count = Field(
        description="Labelled pairs in one forward pass; divides rows_per_step, bounds memory."
    )
    learning_rate: float = Field(gt=0, lt=1, description="Peak learning rate of AdamW.")
    warmup_share: float = Field(ge=0, lt=1, description="Share of the steps over which the learning rate rises.")
    weight_decay: float = Field(ge=0, description="AdamW's weight decay.")
    center_rewards_coefficient: float = Field(ge=0, description="Pull of every pair's rewards towards a mean of zero.")
    gradient_checkpointing: bool = Field(description="Recompute activations: slower, far less memory.")

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> "RewardTrainParams":
        if self.rows_per_step % self.rows_per_micro_batch:
            raise ValueError("rows_per_micro_batch must divide rows_per_step")
        return self


class RewardModelParams(Section):
    """The reward models: one to rescore with, another one to evaluate with."""

    model: str = Field(description="Rates the training data: 'train', a checkpoint folder or a hub id.")
    revision: str | None = Field(description="Commit, tag or branch on the hub.")
    text_format: Literal["auto", "hh", "oasst", "chat_template", "question_answer"] = Field(
        description="How a dialogue becomes the reward model's input text; auto: as is known of the model by its name."
    )
    eval_model: str = Field(
        description="Rates the generations: 'train', a checkpoint folder or a hub id, but not the model above. "
        "Where both are 'train', each learns from one half of the prompts."
    )
    eval_revision: str | None = Field(description="Commit, tag or branch on the hub.")
    eval_text_format: Literal["auto", "hh", "oasst", "chat_template", "question_answer"] = Field(
        description="The same for the evaluation reward model."
    )
    allow_same_eval_model: bool = Field(
        description="Evaluate with the very model that rates the training data; every figure is then marked."
    )
    max_length: int | None = Field(
        ge=8,
        description="Tokens a reward model reads; longer dialogues lose their oldest tokens. Empty: as is known of the "
        "model.",
    )
    tokens_per_batch: int = Field(ge=8, description="Tokens scored in one forward pass, at most: bounds memory.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        description="Precision of the weights; auto: as is known of the model."
    )
    trust_remote_code: bool = Field(
        description="Run model code from the hub. Leave off unless you have read that code."
    )
    train: RewardTrainParams
    seed: Seed


class RescoreParams(Section):
    """What rates the training data; the scores are the same bytes whatever is chosen here."""

    executor: Literal["local", "ray"] = Field(
        description="local: processes of this machine; ray: actors of the cluster that RAY_ADDRESS names, or of a new "
        "one on this machine."
    )
    workers: int = Field(
        ge=0, description="Reward models that rate at once; 0 for one per GPU, or a single one where there is none."
    )
