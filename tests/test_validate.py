"""The validate stage: which data passes, what a failure says, and the Data Docs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clha_core import paths
from clha_core.data.ingest import ingest
from clha_core.data.tables import SCHEMA, write_table
from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.stages import validate as validate_stage

MakeParams = Callable[..., Params]


def good_row(split: str, number: int) -> dict[str, Any]:
    chosen, rejected = f"yes {number}", f"certainly not {number}"
    if number % 2:
        chosen, rejected = rejected, chosen
    return {
        "id": f"s/{split}/{number:06d}",
        "subset": "s",
        "prompt": [{"role": "user", "content": f"{split} {number}?"}],
        "responses": [chosen, rejected],
        "sources": ["chosen", "rejected"],
    }


class Ingested:
    """Ingested tables that a test may spoil before it validates them."""

    def __init__(self, root: Path, make_params: MakeParams) -> None:
        self.root = root
        self.make_params = make_params
        self.rows = {
            split: [good_row(split, number) for number in range(size)]
            for split, size in {"train": 60, "validation": 20, "test": 20}.items()
        }
        self.quarantined = 0

    def validate(self, **limits: Any) -> dict[str, Any]:
        """Write the tables, run the stage, return its metrics."""
        folder = self.root / paths.INGESTED
        folder.mkdir(parents=True, exist_ok=True)
        for split, rows in self.rows.items():
            write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / f"{split}.parquet")
        line = json.dumps({"reason": "empty_reply"}) + "\n"
        (folder / paths.QUARANTINE).write_text(line * self.quarantined)
        changes = {f"validate.{key}": value for key, value in limits.items()}
        validate_stage.run(self.make_params(changes), self.root)
        return self.metrics()

    def metrics(self) -> dict[str, Any]:
        return json.loads((self.root / paths.VALIDATE_METRICS).read_text())

    def docs(self) -> str:
        return (self.root / paths.DATA_DOCS / "index.html").read_text(encoding="utf-8")

    def failures(self, **limits: Any) -> list[str]:
        """The sentences of the error that the stage must raise."""
        with pytest.raises(UserError) as caught:
            self.validate(**limits)
        return [line.strip(" -") for line in str(caught.value).splitlines() if line.startswith("  - ")]


@pytest.fixture
def ingested(tmp_path: Path, make_params: MakeParams) -> Ingested:
    return Ingested(tmp_path, make_params)


def test_good_data_passes_with_its_key_figures(ingested: Ingested) -> None:
    ingested.quarantined = 2
    metrics = ingested.validate()
    assert metrics["success"] is True
    assert metrics["failed"] == 0
    assert metrics["expectations"] > 20
    assert metrics["quarantined_share"] == pytest.approx(2 / 102, abs=1e-6)
    assert metrics["longer_chosen_share"] == 0.5
    assert metrics["reasons"] == {"empty_reply": 2}
    assert metrics["splits"]["test"] == {
        "rows": 20,
        "prompts": 20,
        "duplicate_share": 0.0,
        "longer_chosen_share": 0.5,
        "mean_candidates": 2.0,
        "mean_prompt_turns": 1.0,
        "mean_prompt_chars": 7.5,  # "test 0?" to "test 19?"
        "mean_chosen_chars": 10.5,
        "mean_rejected_chars": 10.5,
    }


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} text"} for role in roles]


# What is done to a train row, and the rule that it then breaks.
SPOILED: list[tuple[dict[str, Any], str]] = [
    ({"id": None}, "Every row has an id."),
    ({"id": "s/train/000004"}, "No two rows have the same id."),
    ({"subset": None}, "Every row names its subset."),
    ({"subset": "../up"}, "Subset names are plain."),
    ({"prompt": turns("user", "user")}, "A prompt is an optional system message"),
    ({"prompt": turns("tool", "user")}, "A prompt is an optional system message"),
    ({"prompt": turns("user", "assistant")}, "The last turn of a prompt is the user's."),
    ({"prompt": []}, "A prompt is an optional system message"),
    ({"prompt": None}, "A prompt is an optional system message"),
    ({"prompt": [{"role": "user", "content": ""}]}, "No turn of a prompt is empty."),
    ({"prompt": [{"role": "user", "content": None}]}, "No turn of a prompt is empty."),
    ({"prompt": [{"role": "user", "content": "x" * 100_001}]}, "No prompt is longer than"),
    ({"prompt": [{"role": "user", "content": "test 3?"}]}, "No prompt is in two splits"),
    ({"responses": ["yes", "yes"]}, "All responses of a row are different"),
    ({"responses": ["a", "b", "a"], "sources": ["chosen", "rejected", "augmented"]}, "All responses of a row are"),
    ({"responses": ["yes", ""]}, "No response is empty."),
    ({"responses": ["yes", "x" * 20_001]}, "No response is longer than"),
    ({"responses": None}, "Every response has one source."),
    ({"responses": ["yes"]}, "Every response has one source."),
    ({"sources": ["rejected", "chosen"]}, "Responses are the chosen, the rejected"),
]  # fmt: skip


@pytest.fixture(scope="module")
def failures_of_spoiled_rows(tmp_path_factory: pytest.TempPathFactory, make_params: MakeParams) -> list[str]:
    """One run over data in which train row 10 + i has the i-th change: a run of Great Expectations is slow."""
    ingested = Ingested(tmp_path_factory.mktemp("spoiled"), make_params)
    for row, (change, _) in zip(ingested.rows["train"][10:], SPOILED, strict=False):
        row |= change
    return ingested.failures()


@pytest.mark.parametrize("position", range(len(SPOILED)))
def test_a_bad_row_is_found_and_named(position: int, failures_of_spoiled_rows: list[str]) -> None:
    change, rule = SPOILED[position]
    row_id = change.get("id", f"s/train/{10 + position:06d}") or "nan"
    [sentence] = [failure for failure in failures_of_spoiled_rows if failure.startswith(rule)]
    assert re.search(rf"Broken by [1-5] of 100: .*id {row_id}\b", sentence)


def test_rows_of_an_unknown_subset_are_found_where_subsets_are_named(
    ingested: Ingested, make_params: MakeParams, tmp_path: Path
) -> None:
    ingested.validate()
    with pytest.raises(UserError, match=r"subsets that data\.subsets names\. Broken by 100 of 100"):
        validate_stage.run(make_params({"data.subsets": ["other"]}), tmp_path)


def test_repeated_rows_are_allowed_up_to_their_share(ingested: Ingested) -> None:
    train = ingested.rows["train"]
    train += [{**train[3], "id": "s/train/copy"}, {**train[3], "id": "s/train/copy again"}]
    assert ingested.validate(max_duplicate_share=0.02)["splits"]["train"]["duplicate_share"] == pytest.approx(
        2 / 62, abs=1e-6
    )
    [sentence] = ingested.failures(max_duplicate_share=0.01)
    assert "Broken by 2 of 102: id s/train/copy" in sentence


def test_too_many_quarantined_rows_fail(ingested: Ingested) -> None:
    ingested.quarantined = 25
    assert ingested.validate(max_quarantined_share=0.2)["quarantined"] == 25
    [sentence] = ingested.failures(max_quarantined_share=0.19)
    assert "quarantined_share 0.2" in sentence


def test_a_split_with_too_few_rows_fails_by_name(ingested: Ingested) -> None:
    [sentence] = ingested.failures(min_rows=21)
    assert "Broken by 2 of 3: rows 20, split validation; rows 20, split test." in sentence
    ingested.rows["test"] = []
    [sentence] = ingested.failures()
    assert "rows 0, split test" in sentence


def test_length_that_decides_the_label_fails(ingested: Ingested) -> None:
    for rows in ingested.rows.values():
        for row in rows:
            row["responses"] = ["a longer response", "short"]
    [sentence] = ingested.failures()
    assert "longer_chosen_share 1.0" in sentence


def test_responses_of_one_length_favour_neither_side(ingested: Ingested) -> None:
    for rows in ingested.rows.values():
        for row in rows:
            row["responses"] = ["yea", "nay"]
    assert ingested.validate()["longer_chosen_share"] == 0.5


def test_tables_of_another_schema_fail_before_rows_are_looked_into(ingested: Ingested, tmp_path: Path) -> None:
    ingested.validate()
    other = pa.table({"id": [1], "subset": ["s"], "text": ["x"]})
    pa.parquet.write_table(other, tmp_path / paths.INGESTED / "test.parquet")
    with pytest.raises(UserError, match="columns of preference rows") as caught:
        validate_stage.run(ingested.make_params(), tmp_path)
    assert "The column id has the type string. Broken by 1 of 3: id int64, split test." in str(caught.value)


def test_missing_or_foreign_files_are_named(ingested: Ingested, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.parquet is not here: `dvc repro` makes it"):
        validate_stage.run(ingested.make_params(), tmp_path)
    ingested.validate()
    quarantine = tmp_path / paths.INGESTED / paths.QUARANTINE
    quarantine.write_text("junk\n")
    with pytest.raises(UserError, match=r"quarantine\.jsonl is not what ingest writes"):
        validate_stage.run(ingested.make_params(), tmp_path)
    quarantine.unlink()
    with pytest.raises(UserError, match=r"quarantine\.jsonl is not here"):
        validate_stage.run(ingested.make_params(), tmp_path)


def test_docs_and_metrics_are_written_before_the_error(ingested: Ingested) -> None:
    ingested.rows["train"][5]["responses"] = ["yes", ""]
    failures = ingested.failures()
    assert ingested.metrics()["success"] is False
    assert ingested.metrics()["failed"] == len(failures) == 1
    assert "No response is empty." in ingested.docs()
    assert "s/train/000005" in ingested.docs()


def test_the_error_says_where_the_docs_are(ingested: Ingested, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / paths.DATA_DOCS / "index.html"))):
        ingested.validate(min_rows=1000)


def test_the_docs_are_one_page_that_needs_no_network(ingested: Ingested, tmp_path: Path) -> None:
    ingested.validate()
    assert [file.name for file in (tmp_path / paths.DATA_DOCS).rglob("*")] == ["index.html"]
    assert not re.search(r"""<(script|link|img|iframe)|https?://|url\(|@import""", ingested.docs())


def test_the_docs_hold_great_expectations_own_rendering(ingested: Ingested) -> None:
    ingested.validate()
    assert "values must match this regular expression" in ingested.docs()


def test_the_docs_escape_what_is_in_the_data(ingested: Ingested) -> None:
    evil = "<script>alert(1)</script>"
    row = ingested.rows["train"][5]
    row |= {
        "id": evil,
        "subset": evil,
        "prompt": [{"role": evil, "content": evil}],
        "responses": [evil, evil],
    }
    row["sources"] = [evil, evil]
    ingested.failures()
    assert evil not in ingested.docs()
    assert "&lt;script&gt;" in ingested.docs()


def test_the_same_data_gives_the_same_bytes(ingested: Ingested) -> None:
    ingested.rows["train"][5]["prompt"] = []
    pages = []
    for _ in range(2):
        ingested.failures()
        pages.append((ingested.docs(), ingested.metrics()))
    assert pages[0] == pages[1]


def test_real_rows_pass(hh_slice: Path, make_params: MakeParams, tmp_path: Path) -> None:
    params = make_params({"data.source": "local", "data.path": str(hh_slice)})
    ingest(params, tmp_path / paths.INGESTED)
    validate_stage.run(params, tmp_path)
    metrics = json.loads((tmp_path / paths.VALIDATE_METRICS).read_text())
    assert metrics["success"] is True
    assert metrics["quarantined"] == 12
    assert metrics["leaked_prompts"] == 0
    assert sum(metrics["splits"][split]["rows"] for split in paths.SPLITS) == 1988
