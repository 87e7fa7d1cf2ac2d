"""The parameters as the form in Prefect's UI sends them.

The form leaves an empty list out, so here, and only here, it may be missing.
"""

from pydantic import Field

from clha_core.params import CandidatesParams, DataParams, EndpointCandidatesParams, Params, PolicyCandidatesParams


class FormDataParams(DataParams):
    """Where preference data comes from and how it is split."""

    subsets: list[str] = Field(default=[], description=DataParams.model_fields["subsets"].description)


class FormPolicyCandidatesParams(PolicyCandidatesParams):
    """Responses sampled from causal language models."""

    models: list[str] = Field(default=[], description=PolicyCandidatesParams.model_fields["models"].description)


class FormEndpointCandidatesParams(EndpointCandidatesParams):
    """Responses of an OpenAI-compatible endpoint."""

    models: list[str] = Field(default=[], description=EndpointCandidatesParams.model_fields["models"].description)
    prompt_prices: list[float] = Field(
        default=[], description=EndpointCandidatesParams.model_fields["prompt_prices"].description
    )
    completion_prices: list[float] = Field(
        default=[], description=EndpointCandidatesParams.model_fields["completion_prices"].description
    )


class FormCandidatesParams(CandidatesParams):
    """Responses beyond the two of the data: from files, from policies, from an endpoint; in this order."""

    policy: FormPolicyCandidatesParams
    endpoint: FormEndpointCandidatesParams


class FormParams(Params):
    """All of params.yaml."""

    data: FormDataParams
    candidates: FormCandidatesParams
