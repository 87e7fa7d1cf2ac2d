"""The typed form of params.yaml, of the presets and of the Prefect form.

params.yaml is the only place of a value, so no field here has a default: a missing key is an error with its name.
Descriptions and bounds are what the form in the Prefect UI shows and checks.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clha_core import paths
from clha_core.errors import UserError

TRAIN = "train"  # in place of a reward model's name: it is trained here

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, description="Seed of everything random in this step.")]


class Section(BaseModel):
    """A group of parameters; unknown keys are refused, so that a typo is never silently ignored."""

    model_config = ConfigDict(extra="forbid")


class DataParams(Section):
    """Where preference data comes from and how it is split."""

    source: Literal["sample", "local", "hub"] = Field(
        description="sample: the embedded dialogues; local: a folder in HH layout; hub: a Hugging Face dataset."
    )
    path: str = Field(
        description="local: the folder, <path>/<subset>/{train,test}.jsonl[.gz]. DVC watches this path for changes; "
        "for the other sources it is the code that makes or loads the data."
    )
    dataset: str = Field(description="hub: dataset id, for example Anthropic/hh-rlhf, or a local dataset folder.")
    revision: str | None = Field(description="hub: commit, tag or branch of the dataset; empty for its main branch.")
    subsets: list[str] = Field(description="Subsets (folders) to take; empty for all.")
    validation_share: float = Field(
        gt=0.0, lt=0.5, description="Share of the train prompts set aside to choose the checkpoint by."
    )
    max_train_rows: int = Field(ge=0, description="Rows read per subset of train; 0 for all.")
    max_test_rows: int = Field(ge=0, description="Rows read per subset of test; 0 for all.")
    seed: Seed


class SampleParams(Section):
    """The embedded sample: a generated world with a known truth (used when data.source is sample)."""

    train_pairs: Count = Field(description="Dialogues to generate for train.")
    test_pairs: Count = Field(description="Dialogues to generate for test.")
    candidates: int = Field(
        ge=2, le=8, description="Responses per prompt: chosen, rejected, and more from other writers."
    )
    label_noise: Share = Field(description="Share of the preference labels that are flipped on purpose.")
    seed: Seed


class ValidateParams(Section):
    """Limits of the data-quality suite; crossing one stops the pipeline."""

    max_quarantined_share: Share = Field(description="Quarantined rows of all rows, at most.")
    max_duplicate_share: Share = Field(description="Rows that repeat another row of their split, at most.")
    max_response_chars: Count = Field(description="Longest response allowed, in characters.")
    max_prompt_chars: Count = Field(description="Longest prompt allowed, in characters.")
    longer_chosen_share: tuple[Share, Share] = Field(
        description="Range for the share of pairs whose chosen response is the longer one; "
        "outside it, length decides the label."
    )
    min_rows: Count = Field(description="Rows that each split must have.")


class ScratchParams(Section):
    """A tiny Llama trained from nothing on the ingested dialogues (used where a model is 'scratch')."""

    vocab_size: int = Field(ge=300, description="Byte-level BPE tokens, trained on the train split.")
    hidden_size: int = Field(ge=16, description="Width; divisible by the number of heads.")
    layers: Count
    heads: Count
    steps: Count = Field(description="Language-modelling steps of the base policy.")
    batch_size: Count
    learning_rate: float = Field(gt=0)
    seed: Seed


class PolicyParams(Section):
    """The model to align."""

    model: str = Field(
        description="'scratch', a local checkpoint folder, or a hub id such as Qwen/Qwen2.5-0.5B-Instruct."
    )
    revision: str | None = Field(
        description="Commit, tag or branch on the hub; it is pinned to a commit when resolved."
    )
    dtype: Literal["float32", "bfloat16", "float16"]
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


class PolicyCandidatesParams(Section):
    """Responses sampled from causal language models."""

    models: list[str] = Field(
        description="Checkpoint folders (models/base, models/sft) and hub ids, with @revision where it matters; empty "
        "for none."
    )
    samples: Count = Field(description="Responses per prompt and model, as far as there is room.")
    temperature: float = Field(gt=0, le=5, description="Above 1 more varied, below 1 more likely responses.")
    top_p: float = Field(gt=0, le=1, description="Sample from the likeliest tokens of this total probability; 1: all.")
    max_new_tokens: Count = Field(description="Responses that are not finished by then are dropped.")
    batch_size: Count = Field(description="Responses sampled at once.")
    seed: Seed


class EndpointCandidatesParams(Section):
    """Responses of an OpenAI-compatible endpoint."""

    models: list[str] = Field(description="Models, as the endpoint calls them; empty for none.")
    environment: str = Field(
        pattern="^[A-Z][A-Z0-9_]*$",
        description="Where the endpoint is: the environment variables <this>_BASE_URL and <this>_API_KEY.",
    )
    samples: Count = Field(description="Responses per prompt and model, as far as there is room.")
    temperature: float | None = Field(ge=0, le=5, description="Empty leaves it to the endpoint.")
    max_tokens: Count = Field(description="Responses that are not finished by then are dropped.")
    seed: int | None = Field(ge=0, description="Sent along; empty for endpoints that take none.")
    concurrency: int = Field(ge=1, le=1024, description="Requests under way at once.")
    prompt_prices: list[float] = Field(description="Price of a million prompt tokens, one for each model.")
    completion_prices: list[float] = Field(
        description="The same for tokens of responses; with both, the cost is counted."
    )

    @model_validator(mode="after")
    def _a_price_for_each_model(self) -> Self:
        for prices in (self.prompt_prices, self.completion_prices):
            if len(prices) not in (0, len(self.models)):
                raise ValueError(f"{len(prices)} prices for {len(self.models)} models: give one for each, or none")
        return self


class CandidatesParams(Section):
    """Responses beyond the two of the data: from files, from policies, from an endpoint; in this order."""

    max_candidates: int = Field(
        ge=2, description="Responses per row, at most, those of the data included; no more are asked for."
    )
    files: str = Field(
        description="Folder of JSONL files, {id or prompt, response or responses} a line. DVC watches it."
    )
    policy: PolicyCandidatesParams
    endpoint: EndpointCandidatesParams


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
    weight_decay: float = Field(ge=0)
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
    lr_scheduler: Literal["linear", "cosine", "constant_with_warmup"]
    weight_decay: float = Field(ge=0)
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


class EvaluateParams(Section):
    """Generation and scoring on the test split."""

    prompts: Count = Field(description="Test prompts to answer, spread over the subsets.")
    max_new_tokens: Count
    batch_size: Count = Field(description="Prompts answered at once.")
    bootstrap_samples: int = Field(ge=100, description="Resamples behind each interval.")
    confidence: float = Field(gt=0.5, lt=1.0)
    seed: Seed


class RuntimeParams(Section):
    """How computations run; part of every model stage, because the number of threads can change the last bit."""

    threads: int = Field(ge=1, le=256, description="CPU threads of torch.")
    launcher: Literal[
        "python",
        "accelerate launch --config_file configs/ddp.yaml",
        "accelerate launch --config_file configs/fsdp2.yaml",
        "accelerate launch --config_file configs/zero3.yaml",
    ] = Field(
        description="What starts the trainings: one process, or one per GPU, each with the whole model (ddp) or with a "
        "part of it (fsdp2, zero3)."
    )


class RegistryParams(Section):
    """Names in MLflow; where the server is comes from the environment (MLFLOW_TRACKING_URI)."""

    experiment: str = Field(min_length=1)
    model_name: str = Field(min_length=1, description="Registered model; its best version gets the alias champion.")


class Params(Section):
    """All of params.yaml."""

    data: DataParams
    sample: SampleParams
    validate_: ValidateParams = Field(alias="validate")
    policy: PolicyParams
    candidates: CandidatesParams
    reward_model: RewardModelParams
    rescore: RescoreParams
    sft: SFTParams
    train: TrainParams
    evaluate: EvaluateParams
    runtime: RuntimeParams
    registry: RegistryParams


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested keys joined by dots, as `dvc exp run -S` writes them."""
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from flatten(value, name)
        else:
            yield name, value


def parse_params(values: Any, origin: str) -> Params:
    """Check a plain mapping against the model; `origin` names it in errors.

    Raises:
        UserError: every wrong, missing or unknown key, one a line.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(whole file)'}: {e['msg']}" for e in error.errors()]
        raise UserError(f"{origin} does not fit:\n" + "\n".join(lines)) from None


def load_params(path: Path = paths.PARAMS) -> Params:
    """Read params.yaml.

    Raises:
        UserError: no such file, not YAML, or a key that is missing, unknown or out of bounds.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not here: run the command from the project's root.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    return parse_params(values, str(path))
