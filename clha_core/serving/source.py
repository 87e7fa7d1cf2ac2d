"""What is served: a registered version or a folder, and how its policy was trained to be asked."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from pydantic import ValidationError

from clha_core.digest import folder_digest
from clha_core.errors import UserError
from clha_core.params import Params, PolicyParams
from clha_core.params.section import Section
from clha_core.tokenization import PromptFormat

DIGEST_LENGTH = 16


class PolicySettings(Section):
    """What a checkpoint does not say of itself; a registered version carries it in its MLmodel file."""

    prompt_format: PromptFormat
    max_length: int
    dtype: str

    @classmethod
    def of(cls, policy: PolicyParams) -> "PolicySettings":
        """The settings of a policy that was trained with these parameters."""
        return cls(prompt_format=policy.prompt_format, max_length=policy.max_length, dtype=policy.dtype)


@dataclass(frozen=True)
class Source:
    """A model to serve.

    Attributes:
        name: what clients ask for; another version may answer to it tomorrow.
        version: exactly this model, as answers name it.
        fingerprint: the beginning of the sha256 of its files.
        weights, tokenizer: folders.
        trust_remote_code: of a folder whose code the user has read; never of a version.
    """

    name: str
    version: str
    fingerprint: str
    weights: Path
    tokenizer: Path
    settings: PolicySettings
    trust_remote_code: bool = False


def folder_source(folder: Path, params: Params) -> Source:
    """A checkpoint folder, such as models/aligned, as params.yaml says that policies are asked here."""
    return Source(
        name=folder.resolve().name,
        version=folder.resolve().name,
        fingerprint=folder_digest(folder)[:DIGEST_LENGTH],
        weights=folder,
        tokenizer=folder,
        settings=PolicySettings.of(params.policy),
        trust_remote_code=params.policy.trust_remote_code,
    )


def version_source(folder: Path, settings: PolicySettings) -> Source:
    """The files of a registered version in a folder, as MLflow's transformers flavour lays them out.

    Raises:
        UserError: they are not there.
    """
    weights, tokenizer = folder / "model", folder / "components" / "tokenizer"
    if not weights.is_dir() or not tokenizer.is_dir():
        raise UserError(f"there is no model to serve in {folder}: it was not registered by `clha register`.")
    return Source(
        name=folder.name,
        version=folder.name,
        fingerprint=folder_digest(weights)[:DIGEST_LENGTH],
        weights=weights,
        tokenizer=tokenizer,
        settings=settings,
    )


class Registered:
    """A version or an alias of the registry: which version it is may change while it is served.

    Args:
        reference: 3, champion, NAME/3, NAME@champion, models:/NAME@champion.

    Raises:
        UserError: MLflow does not answer.
    """

    def __init__(self, reference: str, params: Params, root: Path) -> None:
        from clha_core.tracking.mlflow_tracker import connect

        self.reference = reference
        self._registry = params.registry
        self.client = connect(root, params.registry.experiment)

    def version(self) -> Any:
        """MLflow's ModelVersion that the reference names now.

        Raises:
            UserError: none.
            MlflowException: MLflow does not answer.
        """
        from clha_core.tracking.evaluations import require_version

        return require_version(self.client, self.reference, self._registry)

    def source(self, version: Any, scratch: Path) -> Source:
        """A version's files, where they are on this machine; else downloaded to `scratch`, which is emptied first."""
        import mlflow

        address = self.client.get_model_version_download_uri(version.name, version.version)
        parsed = urlparse(address)
        local = Path(url2pathname(parsed.path)) if parsed.scheme in ("", "file") else None
        if local is None:
            shutil.rmtree(scratch, ignore_errors=True)  # shards of another version would stay beside this one's file
        folder = local or Path(mlflow.artifacts.download_artifacts(address, dst_path=str(scratch)))
        name = f"{version.name}/{version.version}"
        found = version_source(folder, self._settings(version, folder))
        return replace(found, name=version.name, version=name)

    def _settings(self, version: Any, folder: Path) -> PolicySettings:
        """From the version itself; versions of before it had them, from the parameters of their run."""
        from mlflow.models import Model

        flavours = Model.load(folder).flavors if (folder / "MLmodel").exists() else {}
        found: Mapping[str, Any] = flavours.get("python_function", {}).get("config") or {}
        if not found and version.run_id:
            recorded = self.client.get_run(version.run_id).data.params
            found = {name: recorded.get(f"policy.{name}") for name in PolicySettings.model_fields}
        try:
            return PolicySettings.model_validate(found)
        except ValidationError:
            raise UserError(
                f"neither {version.name}/{version.version} nor its run says how it was trained to be asked: register "
                "it again with `clha register`, or serve its folder."
            ) from None
