"""The typed form of a study, and the parameters of every world and training in it."""

from itertools import product
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from clha_core.errors import UserError
from clha_core.params import Count, Params, Section, Seed, Share, parse_params
from clha_core.presets import merged

STUDY = Path(__file__).with_name("studies") / "sample.yaml"
SETTINGS_PER_METHOD = 6  # one budget for all


class Tuning(Section):
    """The world in which settings are picked."""

    noise: Share
    seed: Seed
    prompts: Count


class Method(Section):
    """A method: keys of params.yaml's train section that are fixed, and those whose values are tried."""

    set: dict[str, Any]
    grid: dict[str, list[Any]]

    def settings(self) -> list[dict[str, Any]]:
        """All that are tried, as changes of the train section."""
        return [self.set | dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]


class Ablation(Section):
    """A method with its picked settings, and other keys changed."""

    of: str
    set: dict[str, Any]


class Study(Section):
    """What is compared, and where.

    `params` are keys laid over params.yaml. Settings are tuned, or taken with the methods from the study next to this
    one that `settings_from` names. Data that is not the embedded sample has the labels that it has (noise
    [0]) and two candidates; seeds then change models and order of training.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    params: dict[str, Any] = Field(default={})
    noise: list[Share] = Field(min_length=1)
    candidates: list[Annotated[int, Field(ge=2, le=8)]] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)
    prompts: Count
    tuning: Tuning | None = None
    settings_from: str | None = None
    methods: dict[str, Method] = Field(min_length=1)
    ablations: dict[str, Ablation]

    @model_validator(mode="after")
    def _fair(self) -> "Study":
        for name, method in self.methods.items():
            if len(method.settings()) != SETTINGS_PER_METHOD:
                raise ValueError(f"{name}: {len(method.settings())} settings, every method gets {SETTINGS_PER_METHOD}")
        for name, ablation in self.ablations.items():
            if ablation.of not in self.methods or name in self.methods:
                raise ValueError(f"{name}: an ablation is of a method, and has a name of its own")
        if (self.tuning is None) == (self.settings_from is None):
            raise ValueError("a study has tuning or settings_from, one of them")
        if self.tuning is not None and self.tuning.seed in self.seeds:
            raise ValueError("tuning.seed is one of seeds: settings must not be picked where they are measured")
        own_labels = self.params.get("data", {}).get("source", "sample") != "sample"
        noise = [*self.noise, *([self.tuning.noise] if self.tuning else [])]
        if own_labels and (any(noise) or self.candidates != [2]):
            raise ValueError("only labels of the embedded sample can be flipped: noise [0] and candidates [2]")
        return self

    def variants(self, picked: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """By name, the changes of the train section of everything that a cell trains."""
        return picked | {name: picked[ablation.of] | ablation.set for name, ablation in self.ablations.items()}


def load_study(path: Path = STUDY) -> Study:
    """Read a study.

    Raises:
        UserError: no file, not YAML, or a key that is missing, unknown or wrong.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and "settings_from" in values:
            values["methods"] = load_study(path.with_name(f"{values['settings_from']}.yaml")).methods
        return Study.model_validate(values)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise UserError(f"{path} is not a study: {error}") from None


def study_params(base: Params, study: Study) -> Params:
    """Parameters that all worlds of a study share.

    Raises:
        UserError: the study sets a key or value that params.yaml does not have.
    """
    return parse_params(merged(base.model_dump(mode="json", by_alias=True), study.params), f"the study {study.name}")


def world_params(base: Params, *, noise: float, candidates: int, seed: int) -> Params:
    """Parameters of a world of its own: other data, models and order of training for every seed."""
    values = base.model_dump(mode="json", by_alias=True)
    for section in (values["data"], values["sample"], values["reward_model"], values["sft"], values["train"]):
        section["seed"] += 1000 * seed
    values["policy"]["scratch"]["seed"] += 1000 * seed
    values["sample"] |= {"label_noise": noise, "candidates": candidates}
    return parse_params(values, "the study")


def variant_params(world: Params, changes: dict[str, Any]) -> Params:
    """Parameters of one training in a world; `changes` are keys of the train section.

    Raises:
        UserError: a key or value that the section does not have.
    """
    values = merged(world.model_dump(mode="json", by_alias=True), {"train": changes})
    return parse_params(values, f"the study's variant {changes}")
