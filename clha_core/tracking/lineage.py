"""Where a run comes from: the data's DVC md5, the git commit, the flow run, the model's own bytes."""

import hashlib
import os
import subprocess
from pathlib import Path

import yaml

# Set by the flow for the stages that it starts.
FLOW_RUN_ID = "CLHA_FLOW_RUN_ID"
FLOW_RUN_URL = "CLHA_FLOW_RUN_URL"

# Tags to find a run by: the model that it ended in, and the reward model that evaluated it.
MODEL_DIGEST_TAG = "clha.model_digest"
JUDGE_DIGEST_TAG = "clha.eval_reward_digest"


def project_home(start: Path) -> Path:
    """The user's checkout: the outermost folder around `start` that has a dvc.yaml.

    A flow's workspace and a temporary DVC experiment lie inside the checkout that started them; what is shared by
    all of them (the local MLflow database) belongs to that one.
    """
    start = start.resolve()
    around = [folder for folder in (start, *start.parents) if (folder / "dvc.yaml").exists()]
    return around[-1] if around else start


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
        tags["mlflow.source.git.commit"] = commit
        tags["git.dirty"] = str(bool(_git(root, "status", "--porcelain", "--untracked-files=no"))).lower()
    for variable, tag in ((FLOW_RUN_ID, "prefect.flow_run_id"), (FLOW_RUN_URL, "prefect.flow_run_url")):
        if os.environ.get(variable):
            tags[tag] = os.environ[variable]
    return tags


def folder_digest(folder: Path) -> str:
    """sha256 over names and bytes of all files of a folder: which model this is, wherever it was made."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""
