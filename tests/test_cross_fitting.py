"""No label is rated by a model that has learned it, and what that changes."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from clha_core.digest import folder_digest
from clha_core.errors import UserError
from clha_core.models.loading import ModelSource
from clha_core.params import Params
from clha_core.reward_models import cross_fit
from clha_core.reward_models.calibration import fit_calibration
from clha_core.reward_models.cross_fit import Trained, pair_rewards, train_cross_fitted
from clha_core.scoring.folded import FoldedRater
from clha_core.scoring.folds import Calibration, Folds, fold_folder, read_folds, write_folds
from clha_core.scoring.rater import Rater, RaterSpec

TOKENIZER = tiny.tokenizer()
ROWS = tiny.random_rows(40, seed=2)
turns = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=9)}),
    min_size=1,
    max_size=3,
)


def own_rows(folds: Folds) -> list[dict[str, Any]]:
    return [row for row in ROWS if folds.fold_of(row["prompt"]) is not None]


@given(prompt=turns, parts=st.integers(1, 3), count=st.integers(1, 6), seed=st.integers(0, 99))
def test_every_prompt_is_in_one_part_and_there_in_one_fold(
    prompt: list[dict[str, str]], parts: int, count: int, seed: int
) -> None:
    found = [Folds(part, parts, count, seed).fold_of(prompt) for part in range(parts)]
    (fold,) = [fold for fold in found if fold is not None]
    assert fold in range(count)
    assert found == [Folds(part, parts, count, seed).fold_of([dict(turn) for turn in prompt]) for part in range(parts)]


def test_parts_and_folds_are_of_about_equal_size_and_independent() -> None:
    prompts = [[{"role": "user", "content": f"question {number}"}] for number in range(3000)]
    for part in (0, 1):
        folds = [Folds(part, 2, 3, seed=1).fold_of(prompt) for prompt in prompts]
        assert all(400 < folds.count(fold) < 600 for fold in range(3))


@dataclass
class Learned:
    """A cross-fitted model, and the ids of the rows that each of its models was given to learn from."""

    spec: RaterSpec
    folds: Folds
    given: list[set[str]]
    trained: Trained


@pytest.fixture(scope="module")
def learn(tmp_path_factory: pytest.TempPathFactory, make_params: Callable[..., Params]) -> Callable[..., Learned]:
    """Models that memorise their labels: many steps on few rows of random texts, in which there is nothing to learn."""
    base = tiny.save(tiny.llama(TOKENIZER), TOKENIZER, tmp_path_factory.mktemp("base"))

    def make(count: int, *, parts: int = 2, steps: int = 40) -> Learned:
        train = {"max_steps": steps, "rows_per_step": 16, "rows_per_micro_batch": 16, "learning_rate": 0.01}
        params = make_params({f"reward_model.train.{key}": value for key, value in train.items()}).reward_model
        spec = RaterSpec(tmp_path_factory.mktemp("out") / "reward", "hh", 192, 16, "float32", False)
        folds = Folds(part=0, parts=parts, count=count, seed=3)
        given: list[set[str]] = []
        with pytest.MonkeyPatch.context() as patch:
            real = cross_fit.train_reward_model

            def watched(rows: list[dict[str, Any]], *args: Any, **options: Any) -> Any:
                given.append({row["id"] for row in rows})
                return real(rows, *args, **options)

            patch.setattr(cross_fit, "train_reward_model", watched)
            trained = train_cross_fitted(ROWS, folds, ModelSource(str(base)), TOKENIZER, params, spec, bf16=False)
        return Learned(spec, folds, given, trained)

    return make


@pytest.fixture(scope="module")
def three(learn: Callable[..., Learned]) -> Learned:
    return learn(3)


@pytest.fixture(scope="module")
def single(learn: Callable[..., Learned]) -> Learned:
    return learn(1)


def test_a_row_is_rated_by_the_one_model_that_was_not_given_it(three: Learned) -> None:
    models = [replace(three.spec, folder=fold_folder(three.spec.folder, fold)).load() for fold in range(3)]
    _, calibrations = read_folds(three.spec.folder)
    rows = own_rows(three.folds)
    for row, rewards in zip(rows, three.spec.load().rate(rows, "test"), strict=True):
        (unaware,) = [fold for fold in range(3) if row["id"] not in three.given[fold]]
        (logits,) = models[unaware].rate([row], "test")
        assert rewards == pytest.approx([calibrations[unaware].reward(logit) for logit in logits], abs=1e-5)


def test_a_row_of_the_other_part_is_in_no_training_and_is_rated_by_the_mean_of_all_models(three: Learned) -> None:
    rows = [row for row in ROWS if row not in own_rows(three.folds)]
    assert not {row["id"] for row in rows} & set.union(*three.given)
    _, calibrations = read_folds(three.spec.folder)
    logits = [
        np.array(replace(three.spec, folder=fold_folder(three.spec.folder, fold)).load().rate(rows, "test"))
        for fold in range(3)
    ]
    mean = np.mean([(x - c.zero) / c.temperature for x, c in zip(logits, calibrations, strict=True)], axis=0)
    np.testing.assert_allclose(three.spec.load().rate(rows, "test"), mean, atol=1e-5)


def test_rows_are_rated_alike_alone_and_among_others(three: Learned) -> None:
    rater = three.spec.load()
    together = rater.rate(ROWS, "test")
    alone = [rater.rate([row], "test")[0] for row in ROWS]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_memorised_label_shows_in_the_ratings_of_a_single_model_but_not_of_folds(
    three: Learned, single: Learned
) -> None:
    """The labels are random, so a rating that agrees with them can only have been learned by heart."""

    def agreement(learned: Learned) -> float:
        rewards = pair_rewards(learned.spec.load(), own_rows(learned.folds), "test")
        return float((rewards[:, 0] > rewards[:, 1]).mean())

    assert agreement(single) == 1.0
    assert agreement(three) < 0.8


def test_one_fold_is_a_plain_checkpoint(single: Learned) -> None:
    assert isinstance(single.spec.load(), Rater)
    assert (single.spec.folder / "model.safetensors").exists()
    assert single.trained.temperatures == []
    assert len(single.trained.unseen) == len(ROWS) - len(own_rows(single.folds))


def test_a_folder_of_folds_loads_by_its_spec(three: Learned) -> None:
    assert isinstance(three.spec.load(), FoldedRater)
    assert {path.name for path in three.spec.folder.iterdir()} == {"fold-0", "fold-1", "fold-2", "folds.json"}
    assert json.loads((three.spec.folder / "folds.json").read_text())["count"] == 3
    assert list(three.trained.curves) == [f"reward, fold {number} of 3" for number in (1, 2, 3)]


def test_the_differences_told_are_those_of_the_written_models(three: Learned) -> None:
    rewards = pair_rewards(three.spec.load(), own_rows(three.folds), "test")
    np.testing.assert_allclose(sorted(three.trained.unseen), sorted(rewards[:, 0] - rewards[:, 1]), atol=1e-5)


@pytest.mark.parametrize("fold", [0, 2])
def test_other_weights_in_any_fold_are_another_rater(three: Learned, tmp_path: Path, fold: int) -> None:
    copy = replace(three.spec, folder=Path(shutil.copytree(three.spec.folder, tmp_path / "copy")))
    assert copy.digest == three.spec.digest
    weights = fold_folder(copy.folder, fold) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert copy.digest != three.spec.digest


def test_another_calibration_is_another_rater(three: Learned, tmp_path: Path) -> None:
    copy = replace(three.spec, folder=Path(shutil.copytree(three.spec.folder, tmp_path / "copy")))
    write_folds(copy.folder, three.folds, [Calibration(0.0, 1.0)] * 3)
    assert copy.digest != three.spec.digest


def test_training_again_gives_the_same_bytes(learn: Callable[..., Learned]) -> None:
    first, second = (learn(2, steps=3) for _ in range(2))
    assert folder_digest(first.spec.folder) == folder_digest(second.spec.folder)


def test_the_only_model_that_is_trained_learns_from_all_prompts(learn: Callable[..., Learned]) -> None:
    learned = learn(1, parts=1, steps=1)
    assert learned.given == [{row["id"] for row in ROWS}]
    assert learned.trained.unseen.size == 0


def test_more_folds_than_prompts_are_refused_with_what_to_lower(learn: Callable[..., Learned]) -> None:
    with pytest.raises(UserError, match=r"of 60 folds have no prompt.*reward_model\.train\.folds"):
        learn(60)


def test_the_temperature_is_the_scale_at_which_labels_are_drawn() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, 2)) * 4 + 7
    first = generator.random(20_000) < 1 / (1 + np.exp(-(logits[:, 0] - logits[:, 1]) / 2.5))
    chosen = np.where(first, logits[:, 0], logits[:, 1])
    rejected = np.where(first, logits[:, 1], logits[:, 0])
    calibration = fit_calibration(chosen, rejected)
    assert calibration.temperature == pytest.approx(2.5, rel=0.04)
    assert calibration.zero == pytest.approx(logits.mean())


@pytest.mark.parametrize("sign", [1, -1], ids=["all explained", "all contradicted"])
@given(size=st.floats(0.01, 50), pairs=st.integers(1, 200))
def test_a_temperature_is_positive_and_finite_whatever_the_labels(sign: int, size: float, pairs: int) -> None:
    calibration = fit_calibration(np.full(pairs, sign * size), np.zeros(pairs))
    assert 0 < calibration.temperature < 1e4
