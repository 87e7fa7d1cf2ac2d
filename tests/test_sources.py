"""Where raw rows come from: a local folder, a Hugging Face dataset."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clha_core.data.sources import RawRow, Unreadable, source_splits
from clha_core.errors import UserError
from clha_core.params import Params

MakeParams = Callable[..., Params]


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [{"chosen": f"c{number}", "rejected": f"r{number}"} for number in numbers]


def write(path: Path, raw_rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in raw_rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def read(params: Params) -> list[RawRow]:
    return [row for split in source_splits(params) for row in split.read()]


@pytest.fixture
def local(make_params: MakeParams, tmp_path: Path) -> Callable[..., Params]:
    def make(**changes: Any) -> Params:
        return make_params(
            {
                "data.source": "local",
                "data.path": str(tmp_path),
                **{f"data.{k}": v for k, v in changes.items()},
            }
        )

    return make


def test_a_folder_gives_its_subsets_in_order_plain_or_gzipped(local: Callable[..., Params], tmp_path: Path) -> None:
    write(tmp_path / "b" / "train.jsonl", rows(3))
    write(tmp_path / "a" / "train.jsonl.gz", rows(1))
    write(tmp_path / "a" / "test.jsonl", rows(2))
    assert read(local()) == [
        RawRow("a", "train", 0, rows(1)[0]),
        RawRow("a", "test", 0, rows(2)[0]),
        RawRow("b", "train", 0, rows(3)[0]),
    ]


def test_a_folder_without_subfolders_is_one_subset_of_its_name(local: Callable[..., Params], tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.jsonl", rows(1))
    assert [row.subset for row in read(local(path=str(tmp_path / "mine")))] == ["mine"]


def test_named_subsets_are_taken_and_others_left(local: Callable[..., Params], tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / name / "train.jsonl", rows(1))
    assert [row.subset for row in read(local(subsets=["c", "a"]))] == ["a", "c"]


def test_row_limits_hold_for_each_subset(local: Callable[..., Params], tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name / "train.jsonl", rows(*range(5)))
        write(tmp_path / name / "test.jsonl", rows(*range(5)))
    found = read(local(max_train_rows=3, max_test_rows=2))
    assert [(row.subset, row.split) for row in found].count(("b", "train")) == 3
    assert [(row.subset, row.split) for row in found].count(("b", "test")) == 2


def test_a_row_has_the_number_of_its_line_and_blank_lines_are_no_rows(
    local: Callable[..., Params], tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.jsonl").write_bytes(b'\xef\xbb\xbf{"chosen": 1}\r\n\n  \n{"chosen": 2}')
    assert [(row.number, row.raw) for row in read(local())] == [(0, {"chosen": 1}), (3, {"chosen": 2})]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"{broken", "{broken"),
        (b"[1]", "[1]"),
        (b'{"chosen": "\xff"}', '{"chosen": "\\xff"}'),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_an_unreadable_line_is_handed_on_with_its_text(
    line: bytes, shown: str, local: Callable[..., Params], tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.jsonl").write_bytes(line + b'\n{"chosen": 1}\n')
    broken, whole = read(local())
    assert isinstance(broken.raw, Unreadable)
    assert broken.raw.text == shown
    assert whole.raw == {"chosen": 1}


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"no gzip at all"])
def test_a_damaged_gzip_file_is_named(
    damage: Callable[[bytes], bytes], local: Callable[..., Params], tmp_path: Path
) -> None:
    file = tmp_path / "a" / "train.jsonl.gz"
    write(file, rows(*range(100)))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"a/train\.jsonl\.gz is damaged or cut off .* get the file again"):
        source_splits(local())


@pytest.mark.parametrize("name", ["..", "../a", "/etc", "a/b", "", ".hidden", "a b", "<b>"])
def test_a_subset_that_is_no_plain_name_is_refused(name: str, local: Callable[..., Params]) -> None:
    with pytest.raises(UserError, match="not plain"):
        source_splits(local(subsets=[name]))


def test_a_folder_whose_name_is_not_plain_is_refused(local: Callable[..., Params], tmp_path: Path) -> None:
    write(tmp_path / "<b>" / "train.jsonl", rows(1))
    with pytest.raises(UserError, match="not plain"):
        source_splits(local())


def test_what_is_not_there_is_said(local: Callable[..., Params], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no preference data: expected"):
        source_splits(local())
    with pytest.raises(UserError, match="is not a folder"):
        source_splits(local(path=str(tmp_path / "nowhere")))
    write(tmp_path / "a" / "train.jsonl", rows(1))
    with pytest.raises(UserError, match=r"no subset b with .* it has a"):
        source_splits(local(subsets=["b"]))


def test_two_files_for_one_split_are_refused(local: Callable[..., Params], tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.jsonl", rows(1))
    write(tmp_path / "a" / "train.jsonl.gz", rows(1))
    with pytest.raises(UserError, match="both there"):
        source_splits(local())


def test_the_sample_names_its_own_subsets(make_params: MakeParams) -> None:
    params = make_params({"sample.train_pairs": 30, "sample.test_pairs": 10})
    found = read(params)
    assert [row.split for row in found] == ["train"] * 30 + ["test"] * 10
    chosen = read(params.model_copy(update={"data": params.data.model_copy(update={"subsets": ["helpful"]})}))
    assert chosen == [row for row in found if row.subset == "helpful"]


@pytest.fixture
def hub(make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Params]:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def make(**changes: Any) -> Params:
        return make_params(
            {
                "data.source": "hub",
                "data.dataset": str(tmp_path / "repo"),
                **{f"data.{k}": v for k, v in changes.items()},
            }
        )

    return make


def test_a_dataset_folder_is_one_subset_of_its_name(hub: Callable[..., Params], tmp_path: Path) -> None:
    write(tmp_path / "repo" / "train.jsonl", rows(1, 2, 3))
    write(tmp_path / "repo" / "test.jsonl", rows(4))
    assert read(hub(max_train_rows=2)) == [
        RawRow("repo", "train", 0, rows(1)[0]),
        RawRow("repo", "train", 1, rows(2)[0]),
        RawRow("repo", "test", 0, rows(4)[0]),
    ]


def test_parquet_messages_of_a_dataset_stay_messages(hub: Callable[..., Params], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (tmp_path / "repo").mkdir()
    pq.write_table(pa.table({"chosen": [message], "rejected": [message]}), tmp_path / "repo" / "train.parquet")
    assert [row.raw["chosen"] for row in read(hub())] == [message]  # type: ignore[call-overload]


def test_subsets_of_a_dataset_may_be_its_folders(hub: Callable[..., Params], tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        write(tmp_path / "repo" / name / "train.jsonl", rows(number))
    assert read(hub(subsets=["b"])) == [RawRow("b", "train", 0, rows(1)[0])]


def test_subsets_of_a_dataset_may_be_its_configurations(hub: Callable[..., Params], tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        write(tmp_path / "repo" / f"{name}-files" / "train.jsonl", rows(number))
    (tmp_path / "repo" / "README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_dir: a-files\n- config_name: two\n  data_dir: b-files\n---\n"
    )
    assert [(row.subset, row.raw) for row in read(hub())] == [("one", rows(0)[0]), ("two", rows(1)[0])]


def test_a_dataset_without_a_train_split_is_refused(hub: Callable[..., Params], tmp_path: Path) -> None:
    write(tmp_path / "repo" / "test.jsonl", rows(1))
    with pytest.raises(UserError, match="no split named train, only test"):
        source_splits(hub())


def test_a_subset_that_the_dataset_lacks_is_named(hub: Callable[..., Params], tmp_path: Path) -> None:
    write(tmp_path / "repo" / "train.jsonl", rows(1))
    with pytest.raises(UserError, match=r"subsets nowhere\) could not be loaded"):
        source_splits(hub(subsets=["nowhere"]))


def test_without_network_a_dataset_of_the_hub_says_what_to_do(
    hub: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"Anthropic/hh-rlhf.*could not be loaded.*data.source to local or sample"):
        source_splits(hub(dataset="Anthropic/hh-rlhf"))
