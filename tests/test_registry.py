"""The registry in operation: names for models, promotion, the way back, and what the pages say. A real database."""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import click.testing
import mlflow
import mlflow.cli
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from test_evaluation_report import answers
from typer.testing import CliRunner

from clha_core.cli import app
from clha_core.comparison.compare import Side
from clha_core.errors import UserError
from clha_core.evaluation.metrics import Interval
from clha_core.params import Params
from clha_core.tracking import operations
from clha_core.tracking.evaluations import find_side
from clha_core.tracking.lineage import EVALUATION_DIGEST_TAG, FLOW_RUN_URL, repository_url
from clha_core.tracking.mlflow_tracker import MlflowTracker, connect
from clha_core.tracking.promotion import apply_gate
from clha_core.tracking.registry import GateResult, rewards_of_version

PROTOCOL = {"prompts": "aa", "judge": "bb", "max_new_tokens": 64}
NUMBERS = count()


class Registry:
    """One registered model, with versions whose runs were evaluated as `rewards` says."""

    def __init__(self, root: Path, params: Params, client: MlflowClient) -> None:
        self.root, self.params, self.client = root, params, client
        self.name = params.registry.model_name

    def add(self, shift: float = 0.0, *, run_name: str = "clha m3", **protocol: Any) -> str:
        """A version that is better than another one by the difference of their shifts; gives its number."""
        run_id = self.run(shift, run_name=run_name, **protocol)
        return str(self.client.create_model_version(self.name, "file:///nowhere", run_id).version)

    def run(self, shift: float, *, run_name: str, **protocol: Any) -> str:
        folder = self.root / f"evaluation-{next(NUMBERS)}"
        folder.mkdir()
        table = answers()
        table.assign(aligned_reward=table["aligned_reward"] + shift).to_parquet(folder / "generations.parquet")
        (folder / "protocol.json").write_text(json.dumps(PROTOCOL | protocol), encoding="utf-8")
        with mlflow.start_run(run_name=run_name) as run:
            tracker = MlflowTracker(run)
            tracker.log_artifact(folder, "evaluation")
            tracker.log_dataset("data/rescored", self.root, f"md5of{self.name}.dir", "training")
            tracker.log_metrics({"evaluate/total/reward": 0.5})
            tracker.set_tags({"mlflow.source.git.commit": "c0ffee" * 6, "prefect.flow_run_url": "http://prefect/run/1"})
        return run.info.run_id

    def run_of(self, number: str) -> Any:
        return self.client.get_run(self.version(number).run_id)

    def version(self, number: str) -> ModelVersion:
        return self.client.get_model_version(self.name, number)

    def tags(self, number: str) -> dict[str, str]:
        return self.version(number).tags

    def aliases(self) -> dict[str, str]:
        return {alias: str(number) for alias, number in self.client.get_registered_model(self.name).aliases.items()}

    def promote(self, number: str, why: str = "a reason") -> operations.promotion.Change:
        return operations.promote(self.params, number, why, self.root, by="Ada")

    def rollback(self, why: str = "a reason") -> operations.promotion.Change:
        return operations.rollback(self.params, None, why, self.root, by="Grace")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, MlflowClient]]:
    root = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        yield root, connect(root, "clha")


@pytest.fixture
def registry(database: tuple[Path, MlflowClient], make_params: Callable[..., Params]) -> Registry:
    root, client = database
    name = f"model-{next(NUMBERS)}"
    client.create_registered_model(name)
    return Registry(root, make_params({"registry.model_name": name, "evaluate.bootstrap_samples": 100}), client)


# --- names


def test_a_version_has_many_names(registry: Registry) -> None:
    registry.add(7.0)
    registry.promote("1")
    run_id = registry.run_of("1").info.run_id
    names = ["1", "champion", f"{registry.name}/1", f"{registry.name}@champion", run_id, run_id[:12]]
    for name in [*names, f"models:/{registry.name}/1"]:
        side = find_side(registry.client, name, registry.params.registry, registry.root)
        assert side.evaluation.generations["aligned_reward"].mean() == pytest.approx(
            answers()["aligned_reward"].mean() + 7
        )


def test_a_run_is_found_by_its_name_while_only_one_has_it(registry: Registry) -> None:
    first = registry.run(0.0, run_name="a name of its own")
    registry.run(1.0, run_name="another")
    assert find_side(registry.client, "a name of its own:sft", registry.params.registry, registry.root).system == "sft"
    second = registry.run(0.0, run_name="a name of its own")
    with pytest.raises(UserError) as refused:
        find_side(registry.client, "a name of its own", registry.params.registry, registry.root)
    assert first in str(refused.value)
    assert second in str(refused.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing", "there is nothing called 'nothing'"),
        ("7", "nothing called '7'"),
        (str(2**31), "nothing called"),
        (str(10**22), "nothing called"),
        ("it's", "nothing called"),
    ],
)
def test_an_unknown_name_says_what_names_there_are(registry: Registry, name: str, sentence: str) -> None:
    with pytest.raises(UserError, match="(?s)" + sentence + r".*MLflow run.*`here`"):
        find_side(registry.client, name, registry.params.registry, registry.root)


def test_a_version_of_a_model_that_does_not_exist_is_not_looked_for_among_runs(registry: Registry) -> None:
    with pytest.raises(UserError, match="no other/3 in the registry"):
        find_side(registry.client, "other/3", registry.params.registry, registry.root)


def test_a_number_that_no_version_can_have_is_no_trouble_of_the_servers(registry: Registry) -> None:
    with pytest.raises(UserError, match=f"{registry.name} has no version or alias '{10**22}'"):
        operations.show(registry.params, str(10**22), registry.root)


def test_a_run_that_was_never_evaluated_is_named(registry: Registry) -> None:
    with mlflow.start_run(run_name="died early") as run:
        pass
    with pytest.raises(UserError, match=r"died early .* has no evaluation"):
        find_side(registry.client, run.info.run_id, registry.params.registry, registry.root)


def test_the_working_tree_is_here(registry: Registry, tmp_path: Path) -> None:
    def here(name: str) -> Side:
        return find_side(registry.client, name, registry.params.registry, tmp_path)

    with pytest.raises(UserError, match=r"no reports/evaluation/generations\.parquet here: run `dvc repro`"):
        here("here")
    folder = tmp_path / "reports" / "evaluation"
    folder.mkdir(parents=True)
    answers().to_parquet(folder / "generations.parquet")
    (folder / "protocol.json").write_text(json.dumps(PROTOCOL), encoding="utf-8")
    with pytest.raises(UserError, match=r"no metrics/evaluate\.json here: run `dvc repro`"):
        here("here")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "evaluate.json").write_text('{"judge": {"rated_training_data": true}}', encoding="utf-8")
    assert here("here:base").evaluation.marked


# --- promotion


def test_a_promotion_says_who_when_why_and_after_whom(registry: Registry) -> None:
    registry.add()
    registry.add(0.5)
    registry.promote("1", "the first")
    change = registry.promote("2", "better in the pilot")
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    tags = registry.tags("2")
    assert (tags["promoted.by"], tags["promoted.why"], tags["promoted.from"]) == ("Ada", "better in the pilot", "1")
    assert tags["promoted.at"].endswith("UTC")
    assert tags["gate.difference"] == "0.5000 [0.5000, 0.5000]"
    assert "version 1" in change.sentence()


@pytest.mark.parametrize(
    ("protocol", "passed", "words"),
    [({}, "false", "not shown to be better"), ({"judge": "another"}, "false", "cannot be compared")],
)
def test_a_person_decides_against_the_gate_and_what_it_says_is_noted(
    registry: Registry, protocol: dict[str, Any], passed: str, words: str
) -> None:
    registry.add()
    registry.add(-1.0, **protocol)
    registry.promote("1")
    change = registry.promote("2")
    assert registry.aliases()["champion"] == "2"
    assert registry.tags("2")["gate.passed"] == passed
    assert words in registry.tags("2")["gate.reason"]
    assert words in change.sentence()


@pytest.mark.parametrize("why", ["", "  "])
def test_nothing_changes_without_a_reason(registry: Registry, why: str) -> None:
    registry.add()
    with pytest.raises(UserError, match="--why"):
        registry.promote("1", why)
    assert registry.aliases() == {}


def test_the_champion_cannot_be_promoted(registry: Registry) -> None:
    registry.add()
    registry.promote("1")
    with pytest.raises(UserError, match="champion already"):
        registry.promote("champion")


def test_the_gate_promotes_with_the_same_tags(registry: Registry) -> None:
    registry.add()
    passed = GateResult("the base", Interval(1.0, 0.5, 1.5), "is better than the base")
    assert apply_gate(registry.client, registry.version("1"), passed, "Ada") == "champion"
    assert registry.tags("1")["promoted.why"] == "the gate: is better than the base"
    assert registry.tags("1")["gate.by"] == "Ada"
    assert registry.tags("1")["gate.at"].endswith("UTC")
    registry.add()
    failed = GateResult("champion version 1", Interval(0.0, -0.5, 0.5), "is not shown to be better")
    assert apply_gate(registry.client, registry.version("2"), failed, "Ada") == "candidate"
    assert registry.aliases() == {"champion": "1", "candidate": "2"}
    registry.promote("candidate")
    assert registry.aliases() == {"champion": "2", "previous": "1"}


# --- the way back


def test_a_champion_that_there_is_not_is_not_looked_for_in_a_list(registry: Registry) -> None:
    with pytest.raises(UserError, match="no champion yet: `make pipeline`"):
        operations.show(registry.params, "champion", registry.root)


def test_every_rollback_goes_one_champion_further_back(registry: Registry) -> None:
    for number in ("1", "2", "3"):
        registry.add()
        registry.promote(number)
    registry.rollback("complaints")
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    assert registry.tags("2")["promoted.why"] == "back from version 3: complaints"
    assert (registry.tags("3")["rolled_back.by"], registry.tags("3")["rolled_back.to"]) == ("Grace", "2")
    registry.rollback()
    assert registry.aliases() == {"champion": "1"}
    with pytest.raises(UserError, match="first champion"):
        registry.rollback()


def test_a_rollback_after_a_version_came_back_returns_to_the_one_in_between(registry: Registry) -> None:
    registry.add()
    registry.add()
    for number in ("1", "2", "1"):
        registry.promote(number)
    registry.rollback()
    assert registry.aliases() == {"champion": "2", "previous": "1"}


def test_a_rollback_passes_over_a_version_that_was_deleted(registry: Registry) -> None:
    for number in ("1", "2", "3"):
        registry.add()
        registry.promote(number)
    registry.client.delete_model_version(registry.name, "2")
    registry.rollback()
    assert registry.aliases()["champion"] == "1"


def test_a_champion_that_was_made_in_mlflows_own_pages_rolls_back_to_the_last_one_before(registry: Registry) -> None:
    registry.add()
    registry.add()
    registry.promote("1")
    registry.client.set_registered_model_alias(registry.name, "champion", "2")
    registry.rollback()
    assert registry.aliases()["champion"] == "1"


def test_without_a_champion_there_is_nothing_to_roll_back(registry: Registry) -> None:
    registry.add()
    with pytest.raises(UserError, match="no champion"):
        registry.rollback()


def test_tags_are_of_the_last_decision(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.add()
    registry.add(judge="another")
    with monkeypatch.context() as patch:
        patch.setenv(FLOW_RUN_URL, "http://prefect/run/2")
        registry.promote("1")
        assert registry.tags("1")["promoted.flow_run_url"] == "http://prefect/run/2"
    assert "gate.difference" in registry.tags("1")
    registry.promote("2")
    registry.promote("1")
    assert "promoted.flow_run_url" not in registry.tags("1")
    assert "gate.difference" not in registry.tags("1")  # it cannot be compared with version 2


# --- pages


def test_the_page_of_a_version_leads_to_its_origin_and_the_run_leads_back(registry: Registry) -> None:
    registry.add()
    registry.promote("1", "it is <b>good</b> | really")
    page = registry.version("1").description
    run = registry.run_of("1")
    md5 = f"md5of{registry.name}.dir"
    for words in (
        f"(#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})",
        f"DVC md5 `{md5}`",
        "c0ffee" * 6,
        "(http://prefect/run/1)",
        f"git log --all --oneline -S {md5} -- dvc.lock",
        "dvc checkout data/rescored",
        "it is &lt;b&gt;good&lt;/b&gt; \\| really",
    ):
        assert words in page
    assert run.data.tags["clha.registered_as"] == f"{registry.name} version 1 (champion)"


def test_a_run_knows_when_its_version_is_no_longer_champion(registry: Registry) -> None:
    registry.add()
    registry.add()
    registry.promote("1")
    registry.promote("2")
    assert registry.run_of("1").data.tags["clha.registered_as"] == f"{registry.name} version 1 (previous)"
    registry.rollback()
    assert registry.run_of("2").data.tags["clha.registered_as"] == f"{registry.name} version 2"


@pytest.mark.parametrize("tag", ["data/rescored", "git.commit", "prefect.flow_run_url"])
def test_versions_are_found_by_data_commit_and_flow_run(registry: Registry, tag: str) -> None:
    registry.add()
    registry.promote("1")
    found = registry.client.search_model_versions(f"tags.`{tag}` = '{registry.tags('1')[tag]}'")
    assert registry.name in {version.name for version in found}


@pytest.mark.parametrize(
    ("remote", "page"),
    [
        ("https://user:secret@git.example.org/team/clha.git", "https://git.example.org/team/clha"),
        ("git@git.example.org:team/clha.git", "https://git.example.org/team/clha"),
        ("ssh://git@git.example.org:2222/team/clha", "https://git.example.org/team/clha"),
        ("/srv/git/clha", ""),
        ("../clha", ""),
        ("", ""),
    ],
)
def test_the_page_of_a_repository_has_no_password(remote: str, page: str) -> None:
    assert repository_url(remote) == page


# --- what is gone


def put_into_the_bin(registry: Registry, number: str) -> None:
    registry.client.delete_run(registry.version(number).run_id)


def delete_for_good(registry: Registry, number: str) -> None:
    put_into_the_bin(registry, number)
    options = ["--backend-store-uri", f"sqlite:///{registry.root / 'mlflow.db'}"]
    result = click.testing.CliRunner().invoke(mlflow.cli.gc, [*options, "--run-ids", registry.version(number).run_id])
    assert result.exit_code == 0, result.output


def register_by_hand(registry: Registry) -> None:
    registry.client.create_model_version(registry.name, "file:///nowhere", None)


@pytest.mark.parametrize("delete", [put_into_the_bin, delete_for_good])
def test_champions_change_although_a_run_was_deleted(
    registry: Registry, delete: Callable[[Registry, str], None]
) -> None:
    for number in ("1", "2", "3"):
        registry.add()
        if number != "3":
            registry.promote(number)
    delete(registry, "2")
    assert registry.promote("3").version == "3"
    assert registry.aliases() == {"champion": "3", "previous": "2"}
    assert registry.rollback().version == "2"
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    assert len(operations.listing(registry.params, None, registry.root)) == 3


def test_a_page_says_who_is_champion_also_where_the_run_is_in_the_bin(registry: Registry) -> None:
    registry.add()
    put_into_the_bin(registry, "1")
    registry.promote("1", "nobody else")
    assert "nobody else" in registry.version("1").description


def test_a_page_that_mlflow_does_not_take_is_said_and_the_champion_stays(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.add()
    registry.add()
    registry.promote("1")
    with mlflow.start_run(registry.version("2").run_id) as run:  # names of tags have 250 characters at most
        MlflowTracker(run).log_dataset("x" * 300, registry.root, "md5", "training")
    registry.promote("2")
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    assert f"The page of {registry.name} version 2 in MLflow stays as it was" in capsys.readouterr().out


def rewards_at_the_gate(registry: Registry, folder: Path) -> pd.Series | None:
    return rewards_of_version(registry.version("1"), "digest", folder)


def test_a_champion_that_was_evaluated_alike_has_rewards_at_the_gate(registry: Registry, tmp_path: Path) -> None:
    registry.add()
    registry.client.set_tag(registry.version("1").run_id, EVALUATION_DIGEST_TAG, "digest")
    rewards = rewards_at_the_gate(registry, tmp_path)
    assert rewards is not None
    assert rewards.tolist() == answers()["aligned_reward"].tolist()


def test_a_champion_whose_files_are_gone_cannot_be_compared_with(registry: Registry, tmp_path: Path) -> None:
    registry.add()
    run = registry.run_of("1")
    registry.client.set_tag(run.info.run_id, EVALUATION_DIGEST_TAG, "digest")
    shutil.rmtree(url2pathname(urlparse(run.info.artifact_uri).path))
    assert rewards_at_the_gate(registry, tmp_path) is None


def test_a_champion_without_a_run_cannot_be_compared_with(registry: Registry, tmp_path: Path) -> None:
    register_by_hand(registry)
    assert rewards_at_the_gate(registry, tmp_path) is None
    registry.add()
    registry.promote("1")
    assert "it was not registered by `clha register`" in registry.promote("2").sentence()


# --- the command line


@pytest.fixture
def checkout(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The test's registry as that of the working directory."""
    values = registry.params.model_dump(mode="json", by_alias=True)
    (registry.root / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.chdir(registry.root)
    return registry


def clha(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands_list_promote_show_and_roll_back(checkout: Registry) -> None:
    checkout.add()
    checkout.add(0.25, run_name="dpo b0.1")
    checkout.promote("1")
    assert "version 2 is champion now" in clha("registry", "promote", "2", "--why", "it won", "--by", "Ada")
    listed = clha("registry", "list")
    for words in ("champion", "previous", "dpo b0.1", "0.2500 [0.2500, 0.2500]", "it won", "c0ffee"):
        assert words in listed
    shown = clha("registry", "show")
    assert f"{checkout.name} version 2, champion" in shown
    assert "promoted.why" in shown
    assert "version 1 is champion now" in clha("registry", "rollback", "--why", "it lost")


def test_compare_prints_a_verdict_and_writes_all_figures(checkout: Registry, tmp_path: Path) -> None:
    checkout.add()
    checkout.add(0.25)
    files = tmp_path / "new" / "all.json", tmp_path / "pages" / "page.html"
    output = clha("compare", "2", "1:base", "--json", str(files[0]), "--page", str(files[1]))
    assert f"B is the base of {checkout.name} version 1." in output
    assert "A is better" in output
    figures = json.loads(files[0].read_text(encoding="utf-8"))
    total = figures["metrics"]["A_vs_B"]["total"]
    assert total["reward_difference"] == pytest.approx(1.75)
    assert {"reward_sigmoid_x100_difference_low", "gold_difference", "win", "tie", "lose"} <= set(total)
    assert "<html" in files[1].read_text(encoding="utf-8")
