"""Who is champion: promotion, by the gate or by a person, and the way back.

The registered model keeps the succession of its champions as a tag, so that `rollback` finds the one before, and the
one before that. Each version says as tags who made it champion, when, why, and after whom; its page says the same.
"""

import getpass
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from clha_core.comparison.compare import ALIGNED, Side, require_same_protocol
from clha_core.errors import UserError
from clha_core.evaluation.summary import reward_column
from clha_core.params import EvaluateParams
from clha_core.tracking.evaluations import evaluation_of_version
from clha_core.tracking.lineage import FLOW_RUN_URL, git_user, project_home
from clha_core.tracking.registry import CANDIDATE, CHAMPION, GateResult, champion_of, judge
from clha_core.tracking.turns import FINISHED_MODELS, turn
from clha_core.tracking.version_page import write_version_page

PREVIOUS = "previous"
SUCCESSION = "clha.champions"  # version numbers, the present one last
NOBODY = "nobody"


@dataclass(frozen=True)
class Change:
    """A change of champion, for who asked for it."""

    model_name: str
    version: str
    before: str | None
    gate: str

    def sentence(self) -> str:
        lines = [f"{self.model_name} version {self.version} is champion now."]
        if self.before is not None:
            lines.append(f"Before, it was version {self.before}.")
        if self.gate:
            lines.append(f"The gate says: version {self.version} {self.gate}.")
        return " ".join(lines)


def person(root: Path) -> str:
    """Who runs this: the git user of the checkout, else the user of the operating system."""
    return git_user(project_home(root)) or getpass.getuser()


def apply_gate(client: MlflowClient, version: ModelVersion, gate: GateResult, by: str) -> str:
    """Make a new version champion or candidate, by the gate, and write on it why.

    Returns:
        The alias.
    """
    name, number = version.name, str(version.version)
    write_gate(client, name, number, gate, by)
    if gate.passed:
        crown(client, name, number, by=by, why=f"the gate: {gate.reason}")
        return CHAMPION
    aliases = _aliases(client, name)
    client.set_registered_model_alias(name, CANDIDATE, number)
    _write_pages(client, name, aliases)
    return CANDIDATE


def promote(
    client: MlflowClient, version: ModelVersion, *, why: str, by: str, params: EvaluateParams, root: Path
) -> Change:
    """Make a version champion by a person's word. What the gate says of it is written down, but does not decide.

    Raises:
        UserError: no reason, or it is champion already.
    """
    _require_reason(why)
    name, number = version.name, str(version.version)
    with turn(root, FINISHED_MODELS):
        champion = champion_of(client, name)
        if champion is not None and str(champion.version) == number:
            raise UserError(f"{name} version {number} is champion already.")
        gate = _gate(version, champion, params)
        write_gate(client, name, number, gate, by)
        crown(client, name, number, by=by, why=why)
    return Change(name, number, None if champion is None else str(champion.version), gate.reason)


def rollback(client: MlflowClient, name: str, *, why: str, by: str, root: Path) -> Change:
    """Make the champion before the present one champion again.

    Raises:
        UserError: no reason, no champion, or none before it.
    """
    _require_reason(why)
    with turn(root, FINISHED_MODELS):
        champion = champion_of(client, name)
        if champion is None:
            raise UserError(f"{name} has no champion: `clha registry promote` makes one.")
        number = str(champion.version)
        former = _champions_before(client, name, number)
        if not former:
            raise UserError(
                f"{name} version {number} is the first champion: there is none to go back to. `clha registry promote` "
                "makes any other version champion."
            )
        back = former[-1]
        _set_tags(client, name, number, "rolled_back", _facts(by, why) | {"to": back})
        crown(client, name, back, by=by, why=f"back from version {number}: {why}", after=former[:-1])
    return Change(name, back, number, "")


def crown(client: MlflowClient, name: str, number: str, *, by: str, why: str, after: list[str] | None = None) -> None:
    """Set the alias champion, its succession, and the tags promoted.* of the version.

    Args:
        after: the champions before, where the present one is not to be among them (a rollback).
    """
    aliases = _aliases(client, name)
    before = aliases.get(CHAMPION)
    if after is None:
        after = [] if before is None else [*_champions_before(client, name, before), before]
    client.set_registered_model_tag(name, SUCCESSION, " ".join([*after, number]))
    client.set_registered_model_alias(name, CHAMPION, number)
    if aliases.get(CANDIDATE) == number:
        client.delete_registered_model_alias(name, CANDIDATE)
    if after:
        client.set_registered_model_alias(name, PREVIOUS, after[-1])
    elif PREVIOUS in aliases:
        client.delete_registered_model_alias(name, PREVIOUS)
    _set_tags(client, name, number, "promoted", _facts(by, why) | {"from": before or NOBODY})
    _write_pages(client, name, aliases)


def write_gate(client: MlflowClient, name: str, number: str, gate: GateResult, by: str) -> None:
    """The gate's figures as tags gate.* of a version, and who asked it when."""
    facts = {"opponent": gate.opponent, "reason": gate.reason, "passed": str(gate.passed).lower()}
    facts |= {"by": by, "at": _now()}
    if gate.difference is not None:
        interval = gate.difference
        facts["difference"] = f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
    _set_tags(client, name, number, "gate", facts)


def _gate(version: ModelVersion, champion: ModelVersion | None, params: EvaluateParams) -> GateResult:
    """A version against the champion, or where there is none against its own base, as far as they were evaluated."""
    opponent = "the base" if champion is None else f"champion version {champion.version}"
    try:
        own = evaluation_of_version(version)
        other = Side(own, "base") if champion is None else Side(evaluation_of_version(champion), ALIGNED)
        require_same_protocol(own, other.evaluation)
    except UserError as error:
        return GateResult(
            opponent, None, f"cannot be compared with {opponent}: {str(error).splitlines()[0].rstrip('.')}"
        )
    rewards = other.evaluation.generations.set_index("id")[reward_column(other.system)]
    return judge(own.generations, rewards, opponent, params, marked=own.marked)


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    # A local database gives version numbers as integers, a server as texts.
    return {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}


def _champions_before(client: MlflowClient, name: str, champion: str) -> list[str]:
    """Former champions that are still there, the last one last."""
    succession = client.get_registered_model(name).tags.get(SUCCESSION, "").split()
    if champion in succession:  # what stands behind it was begun and not finished
        succession = succession[: len(succession) - 1 - succession[::-1].index(champion)]
    there = {str(version.version) for version in client.search_model_versions(f"name = '{name}'")}
    return [number for number in succession if number in there]


def _write_pages(client: MlflowClient, name: str, aliases_before: dict[str, str]) -> None:
    """The pages of all versions that have, or had before a change, an alias.

    The change has happened: a page that MLflow does not take is said, and is no reason to fail.
    """
    for number in sorted({*aliases_before.values(), *_aliases(client, name).values()}, key=int):
        try:
            write_version_page(client, name, number)
        except MlflowException as error:
            print(f"The page of {name} version {number} in MLflow stays as it was: {error}", flush=True)


def _set_tags(client: MlflowClient, name: str, number: str, prefix: str, facts: dict[str, str]) -> None:
    """Make `facts` the tags prefix.*; what an earlier decision left under it goes."""
    for key in client.get_model_version(name, number).tags:
        if key.startswith(f"{prefix}.") and key.removeprefix(f"{prefix}.") not in facts:
            client.delete_model_version_tag(name, number, key)
    for key, value in facts.items():
        client.set_model_version_tag(name, number, f"{prefix}.{key}", value)


def _require_reason(why: str) -> None:
    if not why.strip():
        raise UserError("say why (--why TEXT): who looks at the registry next year will want to know.")


def _facts(by: str, why: str) -> dict[str, str]:
    """Who, when and why, and from which flow run if there is one."""
    facts = {"by": by, "at": _now(), "why": why}
    url = os.environ.get(FLOW_RUN_URL)
    return facts | {"flow_run_url": url} if url else facts


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
