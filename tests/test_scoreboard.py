"""The scoreboard compares fairly, forgets nothing that it computed, and averages over seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from project import SMALL
from pydantic import ValidationError
from scipy import stats

from clha_core.errors import UserError
from clha_core.params import Params
from scoreboard import page, results, table, tuning
from scoreboard.cell import World, run_cell, worlds
from scoreboard.study import STUDY, Ablation, Study, load_study, study_params, variant_params, world_params
from scoreboard.tuning import picked

VALUES = yaml.safe_load(STUDY.read_text())
Make = Callable[..., Params]


REAL = {"params": {"data": {"source": "local"}}, "noise": [0.0], "candidates": [2]}


def study_with(**changes: Any) -> Study:
    return Study.model_validate(VALUES | changes)


@pytest.mark.parametrize("path", sorted(STUDY.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_training_of_a_study_is_valid(path: Path, make_params: Make) -> None:
    study = load_study(path)
    base = study_params(make_params(), study)
    settings = {name: method.settings()[0] for name, method in study.methods.items()}
    tried = [changes for method in study.methods.values() for changes in method.settings()]
    for changes in [*tried, *study.variants(settings).values()]:
        variant_params(base, changes)


def test_every_method_is_tried_with_the_same_number_of_settings() -> None:
    one_less = {"set": {"method": "dpo"}, "grid": {"learning_rate": [1e-4, 2e-4, 3e-4, 4e-4, 5e-4]}}
    with pytest.raises(ValidationError, match="5 settings, every method gets 6"):
        study_with(methods=VALUES["methods"] | {"dpo": one_less})


def test_settings_are_not_picked_where_they_are_measured() -> None:
    with pytest.raises(ValidationError, match="must not be picked where they are measured"):
        study_with(tuning=VALUES["tuning"] | {"seed": 1})


def test_a_study_may_take_its_settings_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    study = load_study(STUDY.with_name("hh.yaml"))
    assert study.methods == load_study().methods
    with pytest.raises(UserError, match="run the study sample first"):
        tuning.tune(study, Params.model_construct(), 2, tmp_path)
    tried = {"dpo": [{"set": {"beta": 0.3}, "reward": 0.5, "gold": 1.0}]}
    results.write(tuning.tuning_path(load_study(), 2), {"tried": tried})
    assert tuning.tune(study, Params.model_construct(), 2, tmp_path) == {"tried": tried}


@pytest.mark.parametrize("wrong", [{"noise": [0.0, 0.2]}, {"candidates": [3]}], ids=str)
def test_only_labels_of_the_sample_are_flipped(wrong: dict[str, Any]) -> None:
    settled = VALUES["tuning"] | {"noise": 0.0}
    assert study_with(tuning=settled, **REAL).params == REAL["params"]
    with pytest.raises(ValidationError, match="only labels of the embedded sample can be flipped"):
        study_with(tuning=settled, **REAL | wrong)


def test_all_methods_train_for_the_same_steps_on_the_same_rows() -> None:
    study = load_study()
    kept = {"max_steps", "epochs", "rows_per_step", "start_from", "seed"}
    assert not [name for name, method in study.methods.items() if kept & {*method.set, *method.grid}]


def test_a_world_has_data_models_and_order_of_its_own(make_params: Make) -> None:
    first, second = (world_params(make_params(), noise=0.4, candidates=3, seed=seed) for seed in (1, 2))
    assert first.sample.label_noise == 0.4
    assert first.sample.candidates == 3
    for section in ("data", "sample", "reward_model", "sft", "train"):
        assert getattr(first, section).seed != getattr(second, section).seed
    assert first.policy.scratch.seed != second.policy.scratch.seed


def test_a_wrong_key_of_a_study_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "study.yaml"
    wrong.write_text(STUDY.read_text() + "\nsedes: [1]\n")
    with pytest.raises(UserError, match="sedes"):
        load_study(wrong)


def test_a_result_of_another_study_is_not_taken(tmp_path: Path, make_params: Make) -> None:
    one, other = (
        results.key_of(world_params(make_params(), noise=noise, candidates=2, seed=1), 200) for noise in (0.2, 0.4)
    )
    results.write(tmp_path / "cell.json", {"key": one, "systems": {}})
    assert results.read(tmp_path / "cell.json", one) == {"key": one, "systems": {}}
    assert results.read(tmp_path / "cell.json", other) is None


def test_threads_and_names_in_mlflow_do_not_make_another_result(make_params: Make) -> None:
    keys = {results.key_of(make_params({"runtime.threads": threads}), 200) for threads in (1, 2)}
    assert len(keys) == 1


def test_settings_are_picked_by_the_gold_reward_where_it_is_known() -> None:
    first, second = {"set": {"beta": 0.1}, "reward": 0.2}, {"set": {"beta": 0.3}, "reward": 0.5}
    assert picked({"tried": {"dpo": [first | {"gold": 3.0}, second | {"gold": 1.0}]}}) == {"dpo": {"beta": 0.1}}
    assert picked({"tried": {"dpo": [first, second]}}) == {"dpo": {"beta": 0.3}}


def test_a_study_that_is_cut_off_has_whole_tables_of_fewer_seeds() -> None:
    first = worlds(load_study())[:6]
    assert {world.seed for world in first} == {1}
    assert len({(world.noise, world.candidates) for world in first}) == 6


def found(golds: dict[str, list[float]]) -> pd.DataFrame:
    measures = dict.fromkeys(table.MEASURES, 0.0)
    return table.frame(
        (World(0.2, 2, seed), {"systems": {name: measures | {"gold": column[seed]} for name, column in golds.items()}})
        for seed in range(3)
    )


def test_intervals_are_over_seeds() -> None:
    values = [0.1, 0.4, 0.7]
    (row,) = table.summary(found({"clha": values})).to_dict("records")
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert row["gold"] == pytest.approx(0.4)
    assert row["gold_half"] == pytest.approx((high - low) / 2)


def test_differences_are_paired_by_seed() -> None:
    golds = {"clha": [1.0, 2.0, 3.0], "dpo": [0.5, 1.5, 2.5]}  # far apart over seeds, one half apart in each
    (row,) = table.against(found(golds), "clha", "dpo", "gold").to_dict("records")
    assert row["difference"] == pytest.approx(0.5)
    assert row["half"] == pytest.approx(0.0)


def test_over_all_worlds_a_seed_counts_once() -> None:
    levels = (0.0, 0.4)  # clha is ahead by 1 at the first, by the seed's number at the second
    cells = table.frame(
        (
            World(noise, 2, seed),
            {"systems": {"clha": {"gold": 1.0 if noise == 0 else float(seed)}, "dpo": {"gold": 0.0}}},
        )
        for noise in levels
        for seed in (1, 2, 3)
    )
    mean, half = table.overall(cells, "clha", "dpo", "gold")
    low, high = stats.t.interval(0.95, 2, 1.5, stats.sem([1.0, 1.5, 2.0]))
    assert mean == pytest.approx(1.5)
    assert half == pytest.approx((high - low) / 2)


def test_where_the_truth_is_unknown_the_evaluation_reward_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    tuned = VALUES["tuning"] | {"noise": 0.0}
    study = study_with(name="real", seeds=[1, 2], tuning=tuned, ablations={}, **REAL)
    systems = {name: {"reward": 0.25, "reward_wins": 0.5, "tokens": 9.0} for name in ["base", "start", *study.methods]}
    for world in worlds(study):
        results.write(results.path_of("real", world.name), {"systems": systems})
    tried = {name: [{"set": {"method": name}, "reward": 0.25}] for name in study.methods}
    results.write(tuning.tuning_path(study, 2), {"tried": tried})
    tables, _ = page.write(study, tmp_path / "docs")
    assert "| clha | **0.25 ± 0.00** |" in tables.read_text()
    assert "gold, greedy" not in tables.read_text()


@pytest.mark.slow
def test_a_small_study_runs_to_its_page_and_is_not_run_again(
    make_params: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    grid = {"learning_rate": [1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4]}
    study = study_with(
        noise=[0.2],
        candidates=[3],
        seeds=[1],
        prompts=5,
        tuning={"noise": 0.2, "seed": 100, "prompts": 5},
        methods={"clha": {"set": {"method": "clha"}, "grid": grid}},
        ablations={"clha, labels only": {"of": "clha", "set": {"rewards": "labels"}}},
    )
    smaller = {
        "policy.scratch.steps": 2,
        "reward_model.train.folds": 1,
        "sample.train_pairs": 160,
        "train.max_steps": 2,
    }
    base, scratch = make_params(SMALL | smaller), tmp_path / "scratch"
    tuned = tuning.tune(study, base, 3, scratch)
    assert tuning.tune(study, base, 3, tmp_path / "nothing here") == tuned
    (world,) = worlds(study)
    result = run_cell(study, base, world, picked(tuned), scratch)
    assert list(result["systems"]) == ["base", "start", "clha", "clha, labels only"]
    assert run_cell(study, base, world, picked(tuned), tmp_path / "nothing here") == result
    result["systems"]["clha"]["gold"] = -7.0  # what no training gives
    results.write(results.path_of(study.name, world.name), result)
    study.ablations["clha, no mask"] = Ablation(of="clha", set={"reward_mask": False})
    more = run_cell(study, base, world, picked(tuned), scratch)["systems"]
    assert more["clha, no mask"]["tokens"] > 0
    assert more["clha"]["gold"] == -7.0  # one more variant trains itself alone
    for written in page.write(study, tmp_path / "docs"):
        assert written.stat().st_size > 0
    assert "clha, labels only" in (tmp_path / "docs" / "scoreboard-sample.md").read_text()
