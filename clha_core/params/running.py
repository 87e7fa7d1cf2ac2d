"""Parameters of the evaluation, of the machine and of the record."""

from typing import Literal

from pydantic import Field

from clha_core.params.section import Count, Section, Seed


class EvaluateParams(Section):
    """Generation and scoring on the test split."""

    prompts: Count = Field(description="Test prompts to answer, spread over the subsets.")
    max_new_tokens: Count = Field(description="Tokens of an answer, at most.")
    batch_size: Count = Field(description="Prompts answered at once.")
    generator: Literal["transformers", "endpoint"] = Field(
        description="What answers: transformers in this process, or servers of the checkpoints (vLLM) that "
        "GENERATOR_BASE_URL names."
    )
    bootstrap_samples: int = Field(ge=100, description="Resamples behind each interval.")
    confidence: float = Field(gt=0.5, lt=1.0, description="Of each interval: 0.95 for 95 % intervals.")
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
        "part of it (fsdp2; zero3, which needs the package deepspeed)."
    )


class RegistryParams(Section):
    """Names in MLflow; where the server is comes from the environment (MLFLOW_TRACKING_URI)."""

    experiment: str = Field(min_length=1, description="MLflow's experiment, which holds the runs.")
    model_name: str = Field(
        min_length=1, pattern="^[^'/:]+$", description="Registered model; its best version gets the alias champion."
    )
