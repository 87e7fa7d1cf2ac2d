"""Where a run comes from: the data's DVC md5, the git commit, the flow run, the model's own bytes."""

import os
import re
import subprocess
from pathlib import Path

import yaml

# Set by the flow for the stages that it starts.
FLOW_RUN_ID = "CLHA_FLOW_RUN_ID"
FLOW_RUN_URL = "CLHA_FLOW_RUN_URL"

# Rewritten by every run; what they say is recorded as parameters and data.
GENERATED = (":!dvc.lock", ":!params.yaml")

# Tags to find a run by: the model that it ended in, and how it was evaluated.
MODEL_DIGEST_TAG = "clha.model_digest"
MODEL_MD5_TAG = "dvc.md5.models/aligned"
EVALUATION_DIGEST_TAG = "clha.evaluation_digest"
JUDGE_TAG = "clha.judge"
# MLflow's own names, which its pages make links of.
COMMIT_TAG = "mlflow.source.git.commit"
REPOSITORY_TAG = "mlflow.source.git.repoURL"
# Of a dataset that a run read.
DVC_MD5_TAG = "dvc.md5"

ORIGIN = re.compile(r"(?:\w+://)?(?:[^@/]*@)?(?P<host>[\w.-]+)(?::\d+(?=/))?[:/](?P<path>[^:]+?)(?:\.git)?/?")


def project_home(start: Path) -> Path:
    """The user's checkout that `start` belongs to.

    A flow's workspace (.clha) and a temporary DVC experiment (.dvc/tmp) lie inside the checkout that started them;
    what is shared by all of them (the local MLflow database) belongs to that one.
    """
    start = start.resolve()
    for folder in start.parents:
        if folder.name in (".clha", ".dvc") and (folder.parent / "dvc.yaml").exists():
            return folder.parent
    return start


def locked_md5(root: Path) -> dict[str, str]:
    """md5 by output path, as dvc.lock has it now; empty without a lock."""
    lock = root / "dvc.lock"
    if not lock.exists():
        return {}
    stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}


def origin_tags(root: Path) -> dict[str, str]:
    """Git commit (and whether files differ from it) and flow run, as far as there are any."""
    tags = {}
    commit = _git(root, "rev-parse", "HEAD")
    if commit:
        tags[COMMIT_TAG] = commit
        tags["git.dirty"] = str(
            bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *GENERATED))
        ).lower()
        if url := repository_url(_git(project_home(root), "config", "remote.origin.url")):
            tags[REPOSITORY_TAG] = url
    for variable, tag in ((FLOW_RUN_ID, "prefect.flow_run_id"), (FLOW_RUN_URL, "prefect.flow_run_url")):
        if os.environ.get(variable):
            tags[tag] = os.environ[variable]
    return tags


def repository_url(remote: str) -> str:
    """The page of a git remote, without any password in its address; empty where it is a folder."""
    match = None if remote.startswith(("/", ".", "file:")) else ORIGIN.fullmatch(remote)
    return f"https://{match['host']}/{match['path']}" if match else ""


def git_user(root: Path) -> str:
    """Who commits in this checkout; empty where git does not know."""
    name, email = _git(root, "config", "user.name"), _git(root, "config", "user.email")
    return f"{name} ({email})" if name and email else name


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""
