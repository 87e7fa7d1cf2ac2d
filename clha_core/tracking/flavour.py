"""How a policy is written for the registry: MLflow's transformers flavour, whose server speaks the policy's own format.

MLflow's text-generation server would complete a text with the sampling settings of the checkpoint, past the end of the
answer. Here it loads clha_core.serving.mlflow_model instead; `mlflow.transformers.load_model` is as ever.
"""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.models import Model

import clha_core

if TYPE_CHECKING:  # they take seconds to import, and looking at the registry needs neither
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from clha_core.serving.source import PolicySettings

SERVED_WITH = ("torch", "transformers", "accelerate", "pydantic")
LOADER = "clha_core.serving.mlflow_model"


def save_model(
    path: str,
    mlflow_model: Model,
    *,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    settings: "PolicySettings",
) -> None:
    """Write a version to a new folder; `Model.log` calls this."""
    mlflow.transformers.save_model(
        {"model": model, "tokenizer": tokenizer},
        path,
        task="text-generation",
        code_paths=[str(Path(clha_core.__file__).parent)],
        # Named, because guessing them starts a process that imports more than is installed.
        pip_requirements=[f"{package}=={version(package).partition('+')[0]}" for package in SERVED_WITH],
        mlflow_model=mlflow_model,
    )
    mlflow_model.flavors["python_function"] |= {"loader_module": LOADER, "config": settings.model_dump()}
    mlflow_model.flavors["transformers"]["code"] = None  # its loader needs none of ours, and would put it on sys.path
    mlflow_model.signature = None  # that of a text to complete; a chat's body is checked by the model itself
    mlflow_model.save(str(Path(path) / "MLmodel"))
