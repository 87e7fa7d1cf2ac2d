"""Whether two reward models are one: a policy is no better for pleasing the judge that it was trained to please."""

from pathlib import Path

from clha_core.digest import file_digest
from clha_core.errors import UserError
from clha_core.models.loading import POINTER, follow_pointer


def identities(folder: Path) -> set[str]:
    """What tells the models in a stage's output folder from all others: commits on the hub, digests of weights.

    Names do not count, nor where the weights lie. A folder that holds several models (one a fold) has one of each.
    """
    found = set()
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        if (place / POINTER).exists():
            source = follow_pointer(place)
            found |= identities(Path(source.name)) if source.revision is None else {f"{source.name}@{source.revision}"}
        elif weights := sorted(place.glob("*.safetensors")):
            found.add(" ".join(file_digest(path) for path in weights))
    return found


def judge_rated_training_data(reward: Path, eval_reward: Path, *, allowed: bool) -> bool:
    """Whether the reward model that evaluates is (one of) the reward model that rates the training data.

    Raises:
        UserError: it is, and that is not allowed.
    """
    same = not identities(reward).isdisjoint(identities(eval_reward))
    if same and not allowed:
        raise UserError(
            f"{eval_reward} is the reward model that rates the training data ({reward}): it cannot judge what it has "
            "taught. Name another one in reward_model.eval_model, or set reward_model.allow_same_eval_model to true: "
            "every figure is then marked."
        )
    return same
