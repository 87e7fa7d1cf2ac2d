"""The typed form of params.yaml, of the presets and of the Prefect form.

params.yaml is the only place of a value, so no field here has a default: a missing key is an error with its name.
Descriptions and bounds are what the form in the Prefect UI shows and checks.
"""

from clha_core.params.data import (
    CandidatesParams,
    DataParams,
    EndpointCandidatesParams,
    PolicyCandidatesParams,
    SampleParams,
    ValidateParams,
)
from clha_core.params.file import Params, flatten, load_params, parse_params
from clha_core.params.models import (
    TRAIN,
    PolicyParams,
    RescoreParams,
    RewardModelParams,
    RewardTrainParams,
    ScratchParams,
)
from clha_core.params.running import EvaluateParams, RegistryParams, RuntimeParams
from clha_core.params.section import Count, Section, Seed, Share
from clha_core.params.training import LoraParams, OptimParams, SFTParams, TrainParams

__all__ = [
    "TRAIN",
    "CandidatesParams",
    "Count",
    "DataParams",
    "EndpointCandidatesParams",
    "EvaluateParams",
    "LoraParams",
    "OptimParams",
    "Params",
    "PolicyCandidatesParams",
    "PolicyParams",
    "RegistryParams",
    "RescoreParams",
    "RewardModelParams",
    "RewardTrainParams",
    "RuntimeParams",
    "SFTParams",
    "SampleParams",
    "ScratchParams",
    "Section",
    "Seed",
    "Share",
    "TrainParams",
    "ValidateParams",
    "flatten",
    "load_params",
    "parse_params",
]
