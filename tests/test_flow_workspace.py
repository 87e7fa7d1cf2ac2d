"""A run has a checkout of its own: the user's is not touched, and what runs made is found again."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_project import commit, make_toy_project, run

from clha_core.errors import UserError
from clha_core.params import Params, load_params
from flows.stage import repro
from flows.workspace import Workspace, workspace_of

ROOT = Path(__file__).resolve().parents[1]
PARAMS_YAML = (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_project(tmp_path_factory.mktemp("toy") / "project", PARAMS_YAML)


@pytest.fixture
def toy(untouched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untouched, tmp_path / "project"))


def stages_to_make(workspace: Workspace) -> None:
    repro("double", workspace.root, os.environ, str)


def test_a_run_leaves_the_users_checkout_as_it_was(toy: Path, make_params: Callable[..., Params]) -> None:
    before = sorted(path.relative_to(toy) for path in toy.rglob("*") if ".git" not in path.parts)
    workspace = workspace_of(toy, "my run/1", "12345678-90")
    workspace.create()
    workspace.write_params(make_params({"train.margin": 4.0}))
    stages_to_make(workspace)
    workspace.remove()

    assert run(toy, "git", "status", "--porcelain") == ""
    after = sorted(path.relative_to(toy) for path in toy.rglob("*") if ".git" not in path.parts)
    made = [path for path in after if path not in before and path.parts[:2] not in {(".dvc", "cache"), (".dvc", "tmp")}]
    assert [path.parts[0] for path in made] == [".clha"] * len(made)


def test_what_one_run_made_is_cached_for_the_next(toy: Path, make_params: Callable[..., Params]) -> None:
    for run_id, ran in (("first-00", True), ("second-0", False)):
        workspace = workspace_of(toy, "run", run_id)
        workspace.create()
        workspace.write_params(make_params({"train.margin": 4.0}))
        assert repro("double", workspace.root, os.environ, str) is ran
        assert (workspace.root / "doubled.txt").read_text(encoding="utf-8") == "8.0"


def test_the_users_dvc_lists_the_experiment_of_a_run(toy: Path, make_params: Callable[..., Params]) -> None:
    workspace = workspace_of(toy, "bold otter", "0123456789")
    workspace.create()
    workspace.write_params(make_params({"train.margin": 4.0}))
    stages_to_make(workspace)
    workspace.save_experiment()
    workspace.remove()

    assert "bold-otter-01234567" in run(toy, sys.executable, "-m", "dvc", "exp", "list", "--name-only")
    assert "bold-otter-01234567" in run(toy, sys.executable, "-m", "dvc", "exp", "show", "--csv")
    run(toy, sys.executable, "-m", "dvc", "exp", "apply", "bold-otter-01234567")
    assert (toy / "doubled.txt").read_text(encoding="utf-8") == "8.0"


@pytest.mark.parametrize(("switch", "is_pushed"), [("true", True), ("", False)])
def test_outputs_go_to_the_dvc_remote_where_the_environment_says_so(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str, is_pushed: bool
) -> None:
    monkeypatch.setenv("DVC_EXP_AUTO_PUSH", switch)
    run(toy, sys.executable, "-m", "dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"))
    commit(toy)
    workspace = workspace_of(toy, "run", "1")
    workspace.create()
    stages_to_make(workspace)
    workspace.save_experiment()
    pushed = [file.read_text(encoding="utf-8") for file in (tmp_path / "remote").rglob("*") if file.is_file()]
    assert pushed == (["6.0"] if is_pushed else [])


def test_runs_that_end_at_once_are_all_kept(toy: Path, make_params: Callable[..., Params]) -> None:
    """Nothing of theirs is shared: besides its experiment, no run writes a reference of the user's checkout."""

    def one_run(margin: int) -> None:
        workspace = workspace_of(toy, "run", f"{margin:08d}")
        workspace.create()
        workspace.write_params(make_params({"train.margin": margin + 0.5}))
        stages_to_make(workspace)
        workspace.save_experiment()
        workspace.remove()

    before = references_of(toy)
    with ThreadPoolExecutor() as runs:
        list(runs.map(one_run, range(3)))

    made = references_of(toy) - before
    assert {name.rsplit("/", 1)[1] for name in made} == {"run-00000000", "run-00000001", "run-00000002"}
    for name in made:
        margin = int(name.rsplit("-", 1)[1]) + 0.5
        assert f"margin: {margin}" in run(toy, "git", "show", f"{name}:params.yaml")


def references_of(folder: Path) -> set[str]:
    return set(run(folder, "git", "for-each-ref", "--format=%(refname)").split())


def test_a_run_commits_as_the_user_of_the_checkout(toy: Path) -> None:
    run(toy, "git", "config", "user.name", "Someone Else")
    run(toy, "git", "config", "user.email", "else@example.com")
    workspace = workspace_of(toy, "run", "1")
    workspace.create()
    stages_to_make(workspace)
    workspace.save_experiment()
    assert run(toy, "git", "log", "-1", "--format=%an %ae", "--glob=refs/exps") == "Someone Else else@example.com\n"


def test_a_run_is_kept_where_git_knows_nobody(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, whose user has no configuration of git."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for variable in ("GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for key in ("user.name", "user.email"):
        subprocess.run(["git", "config", "--unset", key], cwd=toy, check=False)
    workspace = workspace_of(toy, "run", "1")
    workspace.create()
    stages_to_make(workspace)
    workspace.save_experiment()
    assert run(toy, "git", "log", "-1", "--format=%an %ae", "--glob=refs/exps") == "clha clha@localhost\n"


@pytest.mark.parametrize("command", ["clone --depth=1", "worktree add"])
def test_a_checkout_may_itself_be_shallow_or_a_worktree(toy: Path, tmp_path: Path, command: str) -> None:
    (toy / "params.yaml").write_text(PARAMS_YAML.replace("margin: 3.0", "margin: 7.0"), encoding="utf-8")
    commit(toy)
    source = {"clone --depth=1": [toy.as_uri()], "worktree add": []}[command]
    home = tmp_path / "other"
    run(toy, "git", *command.split(), "--quiet", *source, str(home))
    workspace = workspace_of(home, "run", "1")
    workspace.create()
    stages_to_make(workspace)
    workspace.save_experiment()
    workspace.remove()
    assert "run-1" in run(home, sys.executable, "-m", "dvc", "exp", "list", "--name-only")


def test_a_retried_run_comes_back_to_its_workspace(toy: Path) -> None:
    assert workspace_of(toy, "run", "12345678-x").is_new
    workspace_of(toy, "run", "12345678-x").create()
    assert not workspace_of(toy, "run", "12345678-x").is_new
    assert workspace_of(toy, "run", "87654321-x").is_new


# The process that creates a workspace is killed between its clone and its files.
KILLED = """
import os, signal, sys
from pathlib import Path
import flows.workspace as workspace
run = workspace.run
def run_or_die(command, *others):
    if command[:2] == ["git", "checkout"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(command, *others)
workspace.run = run_or_die
workspace.workspace_of(Path(sys.argv[1]), "run", "1").create()
"""


def test_half_a_workspace_that_a_kill_left_is_made_anew(toy: Path, make_params: Callable[..., Params]) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, toy], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    workspace = workspace_of(toy, "run", "1")
    assert workspace.root.exists()
    assert workspace.is_new
    workspace.create()
    assert not workspace.is_new
    workspace.write_params(make_params())
    stages_to_make(workspace)


ALONE = """
import sys, time
from pathlib import Path
from flows.workspace import workspace_of
with workspace_of(Path(sys.argv[1]), "run", "1").alone():
    print("alone", flush=True)
    sys.stdin.read()
"""


def test_two_processes_of_one_run_are_never_in_its_workspace_at_once(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = workspace_of(toy, "run", "1")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", ALONE, toy], cwd=ROOT, text=True, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "alone\n"
        Timer(0.5, other.communicate).start()
        with workspace.alone():
            assert other.wait() == 0
    assert "waiting: another process of this run is still at work" in capsys.readouterr().out


def test_a_lock_of_dvc_that_a_process_left_behind_is_no_lock_in_a_workspace_of_ones_own(toy: Path) -> None:
    workspace = workspace_of(toy, "run", "1")
    workspace.create()
    alive = {"pid": os.getpid(), "cmd": "dvc repro, in a container that is gone"}
    lock = {str(workspace.root / "doubled.txt"): {"write": alive}}
    (workspace.root / ".dvc" / "tmp").mkdir(exist_ok=True)
    (workspace.root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(lock), encoding="utf-8")
    with workspace.alone():
        stages_to_make(workspace)


def test_comments_of_params_yaml_stay(toy: Path, make_params: Callable[..., Params]) -> None:
    workspace = Workspace(toy, toy, "here")
    workspace.write_params(make_params({"train.margin": 4.5, "data.subsets": ["a", "b"], "data.revision": "main"}))
    text = (toy / "params.yaml").read_text(encoding="utf-8")
    assert text.splitlines()[0] == PARAMS_YAML.splitlines()[0]
    assert text.count("#") == PARAMS_YAML.count("#")


@given(
    learning_rate=st.floats(min_value=1e-12, max_value=0.9),
    subsets=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))),
    revision=st.none() | st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
)
def test_any_values_come_back_from_params_yaml(
    tmp_path_factory: pytest.TempPathFactory,
    make_params: Callable[..., Params],
    learning_rate: float,
    subsets: list[str],
    revision: str | None,
) -> None:
    folder = tmp_path_factory.mktemp("params")
    (folder / "params.yaml").write_text(PARAMS_YAML, encoding="utf-8")
    params = make_params({"train.learning_rate": learning_rate, "data.subsets": subsets, "policy.revision": revision})
    Workspace(folder, folder, "here").write_params(params)
    assert load_params(folder / "params.yaml") == params


def test_a_commit_with_other_parameters_is_an_error_that_says_what_to_do(
    toy: Path, make_params: Callable[..., Params]
) -> None:
    (toy / "params.yaml").write_text(PARAMS_YAML.replace("  margin:", "  old_margin:"), encoding="utf-8")
    with pytest.raises(UserError, match=r"no train\.margin: commit your changes"):
        Workspace(toy, toy, "here").write_params(make_params())


def test_uncommitted_code_is_named_but_uncommitted_parameters_are_not(toy: Path) -> None:
    (toy / "double.py").write_text("pass", encoding="utf-8")
    (toy / "params.yaml").write_text("train: {margin: 1}", encoding="utf-8")
    assert workspace_of(toy, "run", "1").uncommitted() == ["double.py"]


def test_data_that_git_does_not_have_are_read_from_the_users_checkout(
    toy: Path, make_params: Callable[..., Params]
) -> None:
    (toy / "mine").mkdir()
    (toy / "mine" / "train.jsonl").write_text("{}", encoding="utf-8")
    workspace = workspace_of(toy, "run", "1")
    workspace.create()
    assert workspace.link_local_inputs(make_params({"data.path": "mine"})) == ["mine"]
    assert (workspace.root / "mine" / "train.jsonl").read_text(encoding="utf-8") == "{}"


def test_data_that_are_nowhere_are_asked_for_in_the_users_checkout(
    toy: Path, make_params: Callable[..., Params]
) -> None:
    workspace = workspace_of(toy, "run", "1")
    workspace.create()
    params = make_params({"data.source": "local", "data.path": "data/mine"})
    with pytest.raises(UserError, match=f"put your data into {toy / 'data/mine'}"):
        workspace.require_data(params)
    (toy / "data" / "mine").mkdir(parents=True)
    workspace.link_local_inputs(params)
    workspace.require_data(params)


def test_files_of_responses_and_sampled_models_are_read_from_the_users_checkout_but_not_what_stages_make(
    toy: Path, make_params: Callable[..., Params]
) -> None:
    (toy / "data/augmented").mkdir(parents=True)
    (toy / "data/augmented/README.md").write_text("in git", encoding="utf-8")
    commit(toy)
    for file in ("data/augmented/mine.jsonl", "models/sft/model", "writer/model"):
        (toy / file).parent.mkdir(parents=True, exist_ok=True)
        (toy / file).write_text("{}", encoding="utf-8")
    workspace = workspace_of(toy, "run", "1")
    workspace.create()
    params = make_params({"candidates.policy.models": ["models/sft", "writer"]})
    assert workspace.link_local_inputs(params) == ["writer", "data/augmented/mine.jsonl"]
    assert (workspace.root / "data/augmented/mine.jsonl").read_text(encoding="utf-8") == "{}"


def test_generated_candidates_are_shared_and_outlive_the_workspace(toy: Path) -> None:
    first, second = workspace_of(toy, "run", "1"), workspace_of(toy, "run", "2")
    first.create()
    second.create()
    (first.root / ".clha/candidates/kept").write_text("paid for", encoding="utf-8")
    first.remove()
    assert (second.root / ".clha/candidates/kept").read_text(encoding="utf-8") == "paid for"


def test_without_a_commit_the_error_is_gits(tmp_path: Path) -> None:
    run(tmp_path, "git", "init", "--quiet")
    with pytest.raises(UserError, match="git"):
        workspace_of(tmp_path, "run", "1").create()
