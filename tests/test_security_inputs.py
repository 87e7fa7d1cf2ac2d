"""Files and names that somebody made to fill memory and disk, to stop a run, or to reach what is none of theirs."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clha_core.assessment.key import Key, KeyItem
from clha_core.assessment.votes import read_ballots
from clha_core.candidates.files import candidate_files
from clha_core.cli import app
from clha_core.data.ingest import IngestReport, ingest
from clha_core.data.sources.local import ALWAYS_EXPANDED_BYTES, MAX_EXPANSION, MAX_LINE_BYTES, count_lines
from clha_core.errors import UserError
from clha_core.judging.prompt import Verdict, parse_verdict
from clha_core.params import Params
from flows.workspace import workspace_of

ROOT = Path(__file__).resolve().parents[1]
MakeParams = Callable[..., Params]
GOOD = 20  # rows beside the hostile ones


def row(number: int, **more: Any) -> str:
    question = f"\n\nHuman: question {number}?\n\nAssistant:"
    return json.dumps({"chosen": f"{question} yes", "rejected": f"{question} no", **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in HH layout; hostile lines go behind its good ones."""
    subset = tmp_path / "hh" / "subset"
    subset.mkdir(parents=True)
    (subset / "train.jsonl").write_text("".join(f"{row(number)}\n" for number in range(GOOD)), encoding="utf-8")
    (subset / "test.jsonl").write_text("".join(f"{row(GOOD + number)}\n" for number in range(3)), encoding="utf-8")
    return tmp_path / "hh"


def add(folder: Path, *lines: str) -> None:
    with (folder / "subset" / "train.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def ingested(folder: Path, make_params: MakeParams) -> tuple[IngestReport, list[dict[str, Any]]]:
    """The report and the quarantine, of which every line must be JSON as the standard has it."""
    params = make_params({"data.source": "local", "data.path": str(folder), "data.subsets": []})
    report = ingest(params, folder.parent / "out")
    lines = (folder.parent / "out" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return report, [json.loads(line, parse_constant=pytest.fail) for line in lines]


# --- bombs


def test_a_packed_file_that_unpacks_to_far_more_is_refused_after_little_of_it(tmp_path: Path) -> None:
    bomb = tmp_path / "train.jsonl.gz"
    with gzip.open(bomb, "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    assert bomb.stat().st_size * MAX_EXPANSION < 64 << 20
    with pytest.raises(UserError, match=f"more than {MAX_EXPANSION} times its size.*gunzip"):
        count_lines(bomb)


def test_a_small_packed_file_may_repeat_itself(tmp_path: Path) -> None:
    packed = tmp_path / "train.jsonl.gz"
    lines = 1000
    packed.write_bytes(gzip.compress(b"x" * (ALWAYS_EXPANDED_BYTES // lines - 1) + b"\n", mtime=0) * lines)
    assert count_lines(packed) == lines


def test_a_line_that_is_too_long_is_quarantined_with_its_beginning_and_the_next_one_is_read(
    folder: Path, make_params: MakeParams
) -> None:
    blanks = " " * MAX_LINE_BYTES
    add(folder, json.dumps({"chosen": "x" * MAX_LINE_BYTES}), blanks + row(100), row(101))
    report, quarantine = ingested(folder, make_params)
    assert (report.rows_in, report.accepted) == (GOOD + 3 + 3, GOOD + 3 + 1)
    assert [line["reason"] for line in quarantine] == ["unreadable_line"] * 2
    assert f"longer than {MAX_LINE_BYTES} bytes" in quarantine[0]["detail"]
    assert quarantine[0]["raw"].startswith('{"chosen": "xxx')
    assert len(quarantine[0]["raw"]) <= 1000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_a_line(tmp_path: Path, folder: Path) -> None:
    """A line of 128 MB, and the worst that fits into a line: millions of empty lists."""
    code = """
import sys
from pathlib import Path
from clha_core.data.sources.local import json_lines
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
count = sum(1 for _ in json_lines(Path(sys.argv[1])))
print(count, (peak() - before) // 1024)
"""
    with gzip.open(tmp_path / "long.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(128):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + b'{"a":[' + b",".join([b"[]"] * (MAX_LINE_BYTES // 3 - 4)) + b"]}\n")
    printed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "long.jsonl.gz")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    count, megabytes = map(int, printed.split())
    print(f"{megabytes} MB more for two hostile lines")
    assert count == 2
    assert megabytes < 350


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_of_any_depth_is_a_quarantined_row(folder: Path, make_params: MakeParams, opening: str) -> None:
    closing = {"[": "]", '{"a":': "}"}[opening]
    depths = [*range(900, 1000), 100_000]
    add(folder, *(f'{{"chosen":{opening * depth}1{closing * depth}}}' for depth in depths))
    report, quarantine = ingested(folder, make_params)
    assert report.quarantined == len(quarantine) == len(depths)


def test_what_is_no_number_of_json_is_a_quarantined_line_with_its_text(folder: Path, make_params: MakeParams) -> None:
    lines = ['{"chosen": NaN}', '{"chosen": -Infinity}', '{"chosen": 1e999}', f'{{"chosen": {"9" * 5000}}}']
    add(folder, *lines)
    report, quarantine = ingested(folder, make_params)
    assert report.reasons == {"unreadable_line": 4}
    assert [line["raw"] for line in quarantine] == lines


def test_a_row_with_very_many_candidates_takes_no_longer_than_its_text(folder: Path, make_params: MakeParams) -> None:
    add(folder, row(100, prompt="question 100?", augmented=[str(number) for number in range(100_000)]))
    start = time.process_time()
    report, _ = ingested(folder, make_params)
    assert report.quarantined == 0
    assert time.process_time() - start < 20  # it was minutes where each was compared with all


@pytest.mark.parametrize("reply", ["{" * 300_000, '{"label":' * 50_000, "[" * 300_000 + '{"label": "tie"'])
def test_a_judges_reply_of_braces_is_no_verdict_and_takes_no_time(reply: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match="label"):
        parse_verdict(reply)
    assert time.process_time() - start < 5


def test_a_judges_reason_can_be_written() -> None:
    verdict = parse_verdict('{"reason": "half \\ud83d", "label": "tie"}')
    assert verdict == Verdict("tie", "half ?")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.json", "[" * 100_000),
        ("numbers.json", "9" * 100_000),
        ("null.json", "null"),
        ("wide.csv", "export,item,vote,comment\nx,1," + '"' + "y" * 200_000 + '",'),
        ("open.csv", 'export,item,vote,comment\nx,1,"'),
    ],
)
def test_a_file_of_votes_is_votes_or_a_sentence(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    item = KeyItem(id="r", subset="s", pair="p", item="001", a="aligned")
    key = Key(export="x", system="aligned", against="sft", seed=1, items=[item], identical=[])
    with pytest.raises(UserError, match=name):
        read_ballots([tmp_path / name], key)


# --- paths


def test_a_link_out_of_the_data_folder_is_refused(folder: Path, tmp_path: Path, make_params: MakeParams) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the key is 1234\n", encoding="utf-8")
    train = folder / "subset" / "train.jsonl"
    train.unlink()
    train.symlink_to(secret)
    with pytest.raises(UserError, match="a link out of"):
        ingested(folder, make_params)
    assert not list((tmp_path / "out").glob("*"))


def test_a_subset_that_is_a_link_to_another_folder_is_refused(folder: Path, make_params: MakeParams) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "subset").rename(folder.parent / "elsewhere" / "subset")
    (folder / "subset").symlink_to(folder.parent / "elsewhere" / "subset")
    with pytest.raises(UserError, match="a link out of"):
        ingested(folder, make_params)


def test_links_into_dvcs_cache_and_a_data_folder_that_is_a_link_are_read(
    folder: Path, tmp_path: Path, make_params: MakeParams
) -> None:
    train = folder / "subset" / "train.jsonl"
    cached = tmp_path / "cache/files/md5/0a" / ("b" * 30)
    cached.parent.mkdir(parents=True)
    train.rename(cached)
    train.symlink_to(cached)
    (tmp_path / "link").symlink_to(folder)
    report, _ = ingested(tmp_path / "link", make_params)
    assert report.accepted == GOOD + 3


def test_a_link_out_of_a_dataset_folder_is_refused(tmp_path: Path, make_params: MakeParams) -> None:
    (tmp_path / "secret").write_text(row(1), encoding="utf-8")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "train.jsonl").symlink_to(tmp_path / "secret")
    params = make_params({"data.source": "hub", "data.dataset": str(tmp_path / "dataset"), "data.subsets": []})
    with pytest.raises(UserError, match="a link out of"):
        ingest(params, tmp_path / "out")


@pytest.mark.parametrize("name", ["mine\n| x |.jsonl", "mine\x1b[2J.jsonl", os.fsdecode(b"mine\xff.jsonl")])
def test_a_file_of_responses_has_a_readable_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="unreadable name") as caught:
        candidate_files(tmp_path)
    assert str(caught.value).isprintable()


def test_a_link_among_the_files_of_responses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("", encoding="utf-8")
    (tmp_path / "responses").mkdir()
    (tmp_path / "responses" / "mine.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="a link out of"):
        candidate_files(tmp_path / "responses")


@pytest.mark.parametrize("subset", ["../subset", "/etc", "a/../../b", "..", "--all", ""])
def test_a_subset_is_a_plain_name(folder: Path, make_params: MakeParams, subset: str) -> None:
    params = make_params({"data.source": "local", "data.path": str(folder), "data.subsets": [subset]})
    with pytest.raises(UserError, match="not plain"):
        ingest(params, folder.parent / "out")


@pytest.mark.parametrize("name", ["../presets/sample", "../params", "/etc/passwd", "sample.yaml"])
def test_a_preset_is_one_of_the_presets(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["use", name])
    assert isinstance(result.exception, UserError)
    assert "no preset" in str(result.exception)


@pytest.mark.parametrize("path", ["../outside", "models/../../outside", "../../../outside"])
@pytest.mark.parametrize("key", ["data.path", "policy.model"])
def test_a_run_from_the_form_makes_nothing_outside_of_its_workspace(
    tmp_path: Path, make_params: MakeParams, key: str, path: str
) -> None:
    home = tmp_path / "a" / "b" / "project"
    (home / ".clha").mkdir(parents=True)
    for folder in (home, *home.parents[:3]):
        (folder / "outside").mkdir()
    workspace = workspace_of(home, "run", "12345678")
    workspace.root.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="leads out of the project"):
        workspace.link_local_inputs(make_params({key: path}))
    assert sorted(tmp_path.rglob("*")) == before


def test_parameters_of_a_run_reach_no_command_line(tmp_path: Path, make_params: MakeParams) -> None:
    """The launcher is the only parameter that DVC puts into a command, and it is one of a list."""
    commands = [line for line in (ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines() if " cmd: " in line]
    assert {part.split("}")[0] for line in commands for part in line.split("${")[1:]} == {"runtime.launcher"}
    with pytest.raises(UserError, match="launcher"):
        make_params({"runtime.launcher": "python; touch pwned"})


@pytest.mark.parametrize("name", ["--upload-pack=x", "../../run", "$(touch pwned) `x`; \n", "\x1b[2J", ""])
def test_a_workspace_and_its_experiment_have_a_plain_name_whatever_the_run_is_called(tmp_path: Path, name: str) -> None:
    workspace = workspace_of(tmp_path, name, "0123456789")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*-01234567", workspace.name)
    assert workspace.root == tmp_path / ".clha" / "workspaces" / workspace.name
