"""Rescoring by shards: what is scored is kept, what is not whole is not trusted, and a run goes on where it ended."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from raters import Constant, Failing, OneRowDiffers, StandIn, reward
from test_dvc_yaml import can_change_results, imported_by

from clha_core.data.tables import CANDIDATES_SCHEMA, RESCORED_SCHEMA, write_table
from clha_core.errors import UserError
from clha_core.params import Params
from clha_core.rescoring import shards
from clha_core.rescoring.rescore import rank_candidates
from clha_core.rescoring.shards import SCORING_CODE, ShardStore, read_shards, scorer_digest
from clha_core.rescoring.streamed import Rate, score_missing, write_ranked
from clha_core.rescoring.workers import rate_here
from clha_core.scoring.rater import rescoring_rater
from clha_core.stages.rescore import _load, _load_elsewhere

ROWS = [{name: row[name] for name in CANDIDATES_SCHEMA.names} for row in tiny.random_rows(23)]
IDS = [row["id"] for row in ROWS]


@pytest.fixture(autouse=True)
def five_rows_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_SHARD", 5)


def table_of(path: Path, rows: list[dict]) -> Path:
    write_table(pa.Table.from_pylist(rows, schema=CANDIDATES_SCHEMA), path)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_of(tmp_path / "train.parquet", ROWS)


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    return ShardStore(tmp_path / "shards")


def here(rater: StandIn) -> Rate:
    return lambda missing, count: rate_here(rater, missing)


def rescored(table: Path, store: ShardStore, rate: Rate) -> bytes:
    """The bytes of the table with its rewards."""
    score_missing([table], store, "scorer", rate)
    write_ranked(table, store, "scorer", table.with_name("out.parquet"))
    return table.with_name("out.parquet").read_bytes()


@given(count=st.integers(1, 40))
def test_shards_are_all_rows_in_order_and_only_a_small_table_has_a_small_one(
    tmp_path_factory: pytest.TempPathFactory, count: int
) -> None:
    rows = (ROWS * 2)[:count]
    cut = [shard.rows for shard in read_shards(table_of(tmp_path_factory.getbasetemp() / "t.parquet", rows), "scorer")]
    assert [row for shard in cut for row in shard] == rows
    assert all(len(shard) == 5 for shard in cut[:-1])
    assert len(cut[-1]) < 10
    assert len(cut[-1]) >= min(5, count)


def test_the_result_is_the_table_that_all_rows_at_once_would_give(
    tmp_path: Path, table: Path, store: ShardStore
) -> None:
    rewards = [[reward(response) for response in row["responses"]] for row in ROWS]
    write_table(rank_candidates(ROWS, rewards), tmp_path / "at once.parquet")
    assert rescored(table, store, here(StandIn(tmp_path / "log"))) == (tmp_path / "at once.parquet").read_bytes()


def test_a_run_that_ended_early_goes_on_and_scores_only_what_is_missing(
    tmp_path: Path, table: Path, store: ShardStore
) -> None:
    with pytest.raises(ZeroDivisionError):
        score_missing([table], store, "scorer", here(Failing(tmp_path / "first", row=IDS[12])))
    assert StandIn(tmp_path / "first").shards_rated() == [IDS[:5], IDS[5:10]]
    second = StandIn(tmp_path / "second")
    resumed = rescored(table, store, here(second))
    assert second.shards_rated() == [IDS[10:15], IDS[15:]]
    assert resumed == rescored(table, ShardStore(tmp_path / "other"), here(StandIn(tmp_path / "log")))


def test_the_progress_bar_counts_rows_and_starts_at_those_that_were_there(
    tmp_path: Path, table: Path, store: ShardStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError):
        score_missing([table], store, "scorer", here(Failing(tmp_path / "log", row=IDS[12])))
    score_missing([table], store, "scorer", here(StandIn(tmp_path / "log")))
    printed = capsys.readouterr()
    assert "10 of 23 rows are scored already" in printed.out
    bar = printed.err.rpartition("\r")[2]
    assert "rescore: 100%" in bar
    assert "23/23" in bar


def test_where_nothing_is_missing_no_model_is_loaded(tmp_path: Path, table: Path, store: ShardStore) -> None:
    score_missing([table], store, "scorer", here(StandIn(tmp_path / "log")))

    def never(missing: object, count: int) -> Iterator[tuple[str, list[list[float]]]]:
        raise AssertionError

    score_missing([table], store, "scorer", never)


@given(data=st.data())
def test_a_shard_of_which_a_byte_changed_or_is_missing_is_scored_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    store = ShardStore(folder)
    store.write("key", [[0.25, -1.5], [3.0, 1e-7]])
    assert store.read("key") == [[0.25, -1.5], [3.0, 1e-7]]
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
    file.write_bytes(whole[:place] + data.draw(st.sampled_from([b"", changed + whole[place + 1 :]])))
    assert store.read("key") is None


def test_scores_under_the_name_of_another_shard_are_not_trusted(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    store.write("one", [[1.0, 2.0]])
    (tmp_path / "one.json").rename(tmp_path / "other.json")
    assert store.read("other") is None


@pytest.mark.parametrize(
    ("column", "value"),
    [("id", "another"), ("prompt", [{"role": "user", "content": "else"}]), ("responses", ["one", "two"])],
)
def test_a_row_that_changes_changes_the_key_of_its_shard_and_of_no_other(
    tmp_path: Path, table: Path, column: str, value: object
) -> None:
    changed = table_of(tmp_path / "changed.parquet", [*ROWS[:7], ROWS[7] | {column: value}, *ROWS[8:]])
    before, after = ([shard.key for shard in read_shards(path, "scorer")] for path in (table, changed))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]


def test_a_model_or_a_format_that_changes_changes_every_key(
    tmp_path: Path, table: Path, make_params: Callable[..., Params]
) -> None:
    made = tiny.tokenizer()
    folder = tiny.save(tiny.llama_reward(made), made, tmp_path / "reward")
    spec = rescoring_rater(folder, make_params().reward_model)
    digests = [scorer_digest(spec, 1), scorer_digest(replace(spec, text_format="oasst"), 1), scorer_digest(spec, 2)]
    tiny.save(tiny.llama_reward(made, seed=1), made, folder)
    digests.append(scorer_digest(spec, 1))
    keys = [shard.key for digest in digests for shard in read_shards(table, digest)]
    assert len(set(keys)) == len(keys) == 16


def test_all_code_that_computes_a_score_is_part_of_the_keys() -> None:
    """Tables are here the types of rows; what a row holds is in the key itself."""
    imported = imported_by(Path("clha_core/scoring/rater.py")) - {Path("clha_core/data/tables.py")}
    needed = {path for path in imported if can_change_results(path)}
    named = [Path("clha_core") / name for name in SCORING_CODE]
    covered = {path for path in needed if path in named or path.parent in named}
    assert needed - covered == {path for path in needed if path.name == "__init__.py"} - covered
    assert all(path.exists() for path in named)


def test_scores_that_are_not_finite_stop_with_the_rows_ids_and_are_not_kept(
    tmp_path: Path, table: Path, store: ShardStore
) -> None:
    rater = OneRowDiffers(tmp_path / "log", row=IDS[7], value=float("nan"))
    with pytest.raises(UserError, match=f"1 of 5 rows scores that are not finite, first {IDS[7]}: .*checkpoint"):
        score_missing([table], store, "scorer", here(rater))
    first, second, *_ = read_shards(table, "scorer")
    assert store.read(first.key) is not None
    assert store.read(second.key) is None


def test_equal_scores_stop_at_the_first_shard_with_its_rows_and_what_to_check(
    tmp_path: Path, table: Path, store: ShardStore
) -> None:
    with pytest.raises(UserError, match=rf"same score, 0 \(5 rows, first {IDS[0]}, .*reward_model\.text_format"):
        score_missing([table], store, "scorer", here(Constant(tmp_path / "log")))
    assert all(store.read(shard.key) is None for shard in read_shards(table, "scorer"))


def test_a_real_reward_model_is_loaded_for_a_worker_and_refused_where_it_is_another_one(
    tmp_path: Path,
    table: Path,
    store: ShardStore,
    make_params: Callable[..., Params],
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = tiny.tokenizer()
    folder = tiny.save(tiny.llama_reward(made), made, tmp_path / "reward")
    spec = rescoring_rater(folder, make_params().reward_model)
    load = partial(_load, make_params(), spec)
    result = pa.parquet.read_table(
        pa.BufferReader(rescored(table, store, lambda missing, count: rate_here(load, missing)))
    )
    assert result.schema == RESCORED_SCHEMA
    assert result.num_rows == len(ROWS)
    assert "text" not in capsys.readouterr().err, "a second progress bar"
    with pytest.raises(UserError, match="another model there"):
        _load_elsewhere(make_params(), spec, "digest of another model", 0)
