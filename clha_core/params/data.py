"""Parameters of the data: where it comes from, what it must be like, and candidates beyond it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from clha_core.params.section import Count, Section, Seed, Share


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
    generator: Literal["transformers", "endpoint"] = Field(
        description="What samples: transformers in this process, or servers of the checkpoints (vLLM) that "
        "GENERATOR_BASE_URL names."
    )
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
