"""The parameters as the form in Prefect's UI sends them."""

from pydantic import Field

from clha_core.params import DataParams, Params


class FormDataParams(DataParams):
    """Where preference data comes from and how it is split."""

    # The form leaves an empty list out, so here, and only here, it may be missing.
    subsets: list[str] = Field(default=[], description=DataParams.model_fields["subsets"].description)


class FormParams(Params):
    """All of params.yaml."""

    data: FormDataParams
