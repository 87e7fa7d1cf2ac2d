"""What all sections of params.yaml have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, description="Seed of everything random in this step.")]


class Section(BaseModel):
    """A group of parameters; unknown keys are refused, so that a typo is never silently ignored."""

    model_config = ConfigDict(extra="forbid")
