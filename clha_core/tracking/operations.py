"""What a person may ask of the registry. The command line and the flows call these, and nothing else of it."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from clha_core.comparison.compare import Comparison
from clha_core.comparison.compare import compare as compare_sides
from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.tracking import promotion
from clha_core.tracking.evaluations import find_side, require_version
from clha_core.tracking.listing import list_versions
from clha_core.tracking.mlflow_tracker import connect


def compare(params: Params, a: str, b: str, root: Path) -> Comparison:
    """Two evaluated systems, named as in evaluations.FORMS.

    Raises:
        UserError: one of them is not to be found, or they were not evaluated alike.
    """
    client = _client(params, root)
    side_a, side_b = (find_side(client, text, params.registry, root) for text in (a, b))
    return compare_sides(side_a, side_b, params.evaluate)


def listing(params: Params, model: str | None, root: Path) -> list[list[str]]:
    """A row of listing.COLUMNS for each version of a model (registry.model_name if none is named)."""
    return list_versions(_client(params, root), _model_name(params, model))


def show(params: Params, reference: str, root: Path) -> ModelVersion:
    """A version with its page and its tags."""
    return require_version(_client(params, root), reference, params.registry)


def promote(params: Params, reference: str, why: str, root: Path, *, by: str | None = None) -> promotion.Change:
    """Make a version champion; `by` is who wants it, if not the git user.

    Raises:
        UserError: no such version, no reason, or it is champion already.
    """
    client = _client(params, root)
    version = require_version(client, reference, params.registry)
    return promotion.promote(
        client, version, why=why, by=by or promotion.person(root), params=params.evaluate, root=root
    )


def rollback(params: Params, model: str | None, why: str, root: Path, *, by: str | None = None) -> promotion.Change:
    """Make the champion before the present one champion again.

    Raises:
        UserError: no reason, no champion, or none before it.
    """
    name = _model_name(params, model)
    return promotion.rollback(_client(params, root), name, why=why, by=by or promotion.person(root), root=root)


def _model_name(params: Params, model: str | None) -> str:
    """Raises:
    UserError: it has a quote, which would end the name in MLflow's language for filters.
    """
    if model is not None and "'" in model:
        raise UserError(f"{model!r} is no name of a registered model: it has a quote.")
    return model or params.registry.model_name


def _client(params: Params, root: Path) -> MlflowClient:
    return connect(root, params.registry.experiment)
