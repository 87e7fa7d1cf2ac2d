"""The ingest stage: every row ends up in one split or in the quarantine, and no prompt leaks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from clha_core import paths
from clha_core.data.dialogue import parse_row
from clha_core.data.ingest import IngestReport, ingest
from clha_core.data.tables import SCHEMA, PreferenceWriter, read_table
from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.stages import ingest as ingest_stage

MakeParams = Callable[..., Params]


def row(prompt: str, chosen: str = "yes", rejected: str = "no") -> dict[str, Any]:
    return {
        key: f"\n\nHuman: {prompt}\n\nAssistant: {reply}" for key, reply in (("chosen", chosen), ("rejected", rejected))
    }


def many(prefix: str, count: int) -> list[dict[str, Any]]:
    return [row(f"{prefix} {number}") for number in range(count)]


class Project:
    """A local data folder and what ingest makes of it."""

    def __init__(self, root: Path, make_params: MakeParams) -> None:
        self.root = root
        self.make_params = make_params
        self.out = root / "out"

    def write(self, subset: str, split: str, rows: list[Any]) -> None:
        folder = self.root / "data" / subset
        folder.mkdir(parents=True, exist_ok=True)
        lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
        (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))

    def params(self, **changes: Any) -> Params:
        local = {"data.source": "local", "data.path": str(self.root / "data")}
        return self.make_params({**local, **{f"data.{key}": value for key, value in changes.items()}})

    def ingest(self, **changes: Any) -> IngestReport:
        return ingest(self.params(**changes), self.out)

    def rows(self, split: str) -> list[dict[str, Any]]:
        return read_table(self.out / f"{split}.parquet").to_pylist()

    def prompts(self, split: str) -> set[str]:
        return {row["prompt"][-1]["content"] for row in self.rows(split)}

    def quarantine(self) -> list[dict[str, Any]]:
        lines = (self.out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def project(tmp_path: Path, make_params: MakeParams) -> Project:
    return Project(tmp_path, make_params)


def test_a_row_is_stored_with_its_origin(project: Project) -> None:
    project.write("s", "train", many("train", 40))
    project.write(
        "s",
        "test",
        [{**row("Hi", "good", "bad"), "augmented": ["\n\nHuman: Hi\n\nAssistant: better"]}],
    )
    project.ingest()
    assert project.rows("test") == [
        {
            "id": "s/test/000000",
            "subset": "s",
            "prompt": [{"role": "user", "content": "Hi"}],
            "responses": ["good", "bad", "better"],
            "sources": ["chosen", "rejected", "augmented"],
        }
    ]


def test_every_row_is_accepted_or_quarantined_with_reason_and_raw_form(project: Project) -> None:
    project.write("a", "train", [*many("train", 60), row("empty", chosen=""), "{broken", row("same", "x", "x")])
    project.write("b", "test", [row("Hi"), {"chosen": "\n\nHuman: Hi\n\nAssistant: yes"}])
    report = project.ingest()
    assert (report.rows_in, report.accepted, report.quarantined) == (65, 61, 4)
    assert report.subsets == {
        "a": {"rows_in": 63, "accepted": 60, "quarantined": 3},
        "b": {"rows_in": 2, "accepted": 1, "quarantined": 1},
    }
    assert report.reasons == {"empty_reply": 1, "unreadable_line": 1, "equal_replies": 1, "missing_field": 1}
    assert sum(len(project.rows(split)) for split in paths.SPLITS) == 61
    found = {record["id"]: record for record in project.quarantine()}
    assert set(found) == {"a/train/000060", "a/train/000061", "a/train/000062", "b/test/000001"}
    assert found["a/train/000060"]["raw"] == row("empty", chosen="")
    assert found["a/train/000061"]["raw"] == "{broken"
    assert found["b/test/000001"] == {
        "id": "b/test/000001",
        "subset": "b",
        "split": "test",
        "reason": "missing_field",
        "detail": 'The row has no "rejected".',
        "raw": {"chosen": "\n\nHuman: Hi\n\nAssistant: yes"},
    }


def test_half_a_surrogate_pair_is_quarantined_as_valid_utf8(project: Project) -> None:
    project.write("s", "train", [*many("train", 40), row("broken \ud83d"), row("whole \U0001f600")])
    project.write("s", "test", [row("Hi")])
    report = project.ingest()
    assert report.reasons == {"invalid_text": 1}
    assert project.quarantine()[0]["raw"] == row("broken \ud83d")


def test_all_rows_of_a_prompt_are_in_one_split(project: Project) -> None:
    rows = [row(f"prompt {number % 30}", f"yes {number}") for number in range(120)]
    project.write("a", "train", rows[:60])
    project.write("b", "train", rows[60:])
    project.write("a", "test", [row("Hi")])
    project.ingest(validation_share=0.3)
    train, validation = project.prompts("train"), project.prompts("validation")
    assert train
    assert validation
    assert not train & validation
    assert len(project.rows("train")) == 4 * len(train)


def test_rows_do_not_move_when_others_are_added(project: Project) -> None:
    project.write("s", "test", [row("Hi")])
    project.write("s", "train", many("old", 100))
    project.ingest(validation_share=0.3)
    before = project.prompts("validation")
    project.write("s", "train", [*many("new", 100), *many("old", 100)])
    project.ingest(validation_share=0.3)
    assert {prompt for prompt in project.prompts("validation") if prompt.startswith("old")} == before


def test_another_seed_sets_other_prompts_aside(project: Project) -> None:
    project.write("s", "test", [row("Hi")])
    project.write("s", "train", many("train", 100))
    drawn = []
    for seed in (1, 2):
        project.ingest(validation_share=0.3, seed=seed)
        drawn.append(project.prompts("validation"))
    assert drawn[0] != drawn[1]


def test_a_train_row_whose_prompt_is_in_any_test_is_quarantined(project: Project) -> None:
    project.write("a", "train", [*many("train", 40), row("asked in test", "other reply")])
    project.write("b", "test", [row("asked in test"), row("asked in test", "twice")])
    report = project.ingest()
    assert report.reasons == {"prompt_in_test": 1}
    assert [record["id"] for record in project.quarantine()] == ["a/train/000040"]
    assert len(project.rows("test")) == 2


def test_test_is_carved_by_prompt_for_a_subset_without_one(project: Project) -> None:
    shared = many("shared", 100)
    project.write("bare", "train", shared)
    project.write("whole", "train", shared)
    project.write("whole", "test", [row("Hi")])
    report = project.ingest(validation_share=0.2)
    assert report.subsets_without_test == 1
    carved = {row["id"] for row in project.rows("test")} - {"whole/test/000000"}
    assert 5 < len(carved) < 40
    assert all(row_id.startswith("bare/train/") for row_id in carved)
    assert report.reasons == {"prompt_in_test": len(carved)}  # the same prompts in the other subset
    assert not project.prompts("test") & (project.prompts("train") | project.prompts("validation"))


def test_two_prompts_are_enough_for_train_and_validation(project: Project) -> None:
    project.write("s", "test", [row("Hi")])
    for share in (0.001, 0.49):
        for seed in range(8):
            project.write("s", "train", [row("one"), row("one", "again"), row("two")])
            report = project.ingest(validation_share=share, seed=seed)
            assert len(project.prompts("train")) == len(project.prompts("validation")) == 1
            assert report.splits == {split: len(project.rows(split)) for split in paths.SPLITS}


def test_three_prompts_are_enough_for_all_splits(project: Project) -> None:
    project.write("s", "train", many("train", 3))
    for seed in range(8):
        project.ingest(validation_share=0.001, seed=seed)
        assert [len(project.rows(split)) for split in paths.SPLITS] == [1, 1, 1]


@pytest.mark.parametrize(
    ("train", "test", "empty"),
    [
        ([row("one"), row("two")], [row("Hi", "")], "test"),
        ([row("one", "")], [row("Hi")], "train, validation"),
        ([row("one"), row("one", "again")], [row("Hi")], "validation"),
        ([], [], "train, validation, test"),
    ],
)
def test_an_empty_split_is_an_error_that_says_why(
    train: list[Any], test: list[Any], empty: str, project: Project
) -> None:
    project.write("s", "train", train)
    project.write("s", "test", test)
    with pytest.raises(UserError, match=f"No usable rows for {empty}: .* read, .* quarantined"):
        project.ingest(validation_share=0.001)


def test_the_same_data_gives_the_same_bytes(project: Project) -> None:
    project.write("s", "train", [*many("train", 50), "{broken", row("x", "")])
    project.write("s", "test", [row("Hi")])
    contents = []
    for _ in range(2):
        project.ingest()
        contents.append({file.name: file.read_bytes() for file in project.out.iterdir()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"train.parquet", "validation.parquet", "test.parquet", "quarantine.jsonl"}


def test_datasets_reads_the_tables(project: Project) -> None:
    project.write("s", "train", many("train", 50))
    project.write("s", "test", [row("Hi")])
    project.ingest()
    loaded = datasets.Dataset.from_parquet(str(project.out / "test.parquet"), cache_dir=str(project.root / "cache"))
    assert loaded[0]["prompt"] == [{"role": "user", "content": "Hi"}]


def test_a_table_of_many_batches_is_read_back_whole(tmp_path: Path) -> None:
    with PreferenceWriter(tmp_path / "t.parquet") as writer:
        for number in range(4_500):
            writer.add(f"id {number}", "s", parse_row(row(f"prompt {number}")))
    table = read_table(tmp_path / "t.parquet")
    assert table.schema.equals(SCHEMA)
    assert table["id"].to_pylist() == [f"id {number}" for number in range(4_500)]
    assert writer.rows == 4_500


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not here: `dvc repro` makes it"):
        read_table(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"junk")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_table(tmp_path / "t.parquet")
    pa.parquet.write_table(pa.table({"id": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="other columns"):
        read_table(tmp_path / "t.parquet")


def test_the_stage_writes_tables_and_metrics_below_its_root(project: Project, tmp_path: Path) -> None:
    project.write("s", "train", [*many("train", 50), row("x", "")])
    project.write("s", "test", [row("Hi")])
    ingest_stage.run(project.params(path="data"), tmp_path)
    metrics = json.loads((tmp_path / paths.INGEST_METRICS).read_text())
    tables = {split: read_table(tmp_path / paths.INGESTED / f"{split}.parquet").num_rows for split in paths.SPLITS}
    assert metrics == {
        "rows_in": 52,
        "accepted": 51,
        "quarantined": 1,
        "splits": tables,
        "subsets": {"s": {"rows_in": 52, "accepted": 51, "quarantined": 1}},
        "reasons": {"empty_reply": 1},
        "subsets_without_test": 0,
    }


def test_real_rows_are_split_and_their_known_defects_quarantined(
    hh_slice: Path, make_params: MakeParams, tmp_path: Path
) -> None:
    report = ingest(make_params({"data.source": "local", "data.path": str(hh_slice)}), tmp_path)
    assert (report.rows_in, report.accepted, report.quarantined) == (2000, 1988, 12)
    assert report.reasons == {"empty_reply": 4, "repeated_speaker": 8}
    assert report.splits["test"] == 197
    # "Human: ..." inside the last prompt turn would mean a split at the wrong marker.
    for split in paths.SPLITS:
        for stored in read_table(tmp_path / f"{split}.parquet").to_pylist():
            assert not any("\n\nHuman:" in text or "\n\nAssistant:" in text for text in stored["responses"])
            assert stored["prompt"][-1]["role"] == "user"
