"""What votes say: outcomes, agreement among raters and with other judges, all of it by hand-made examples."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import cohen_kappa_score

from clha_core.assessment.key import Key, KeyItem, KeyPair
from clha_core.assessment.results import assess
from clha_core.assessment.table import print_results
from clha_core.assessment.votes import SKIP, Ballot
from clha_core.errors import UserError
from clha_core.judging.agreement import cohen, fleiss, outcome_agreement
from clha_core.judging.labels import LABELS
from clha_core.params import EvaluateParams

A_WINS, B_WINS = "A better", "B much better"


@pytest.fixture(scope="module")
def params(make_params: Callable) -> EvaluateParams:
    return make_params({"evaluate.bootstrap_samples": 100}).evaluate


def key_of(system_is_a: str, rewards: list[float] | None = None, identical: int = 0) -> Key:
    """A key of one item per character: "a" where the system is A, "b" where it is B; odd items are harmless."""
    items = [
        KeyItem(
            item=f"{place:03d}",
            id=f"row-{place}",
            subset="harmless-base" if place % 2 else "helpful-base",
            pair=f"pair-{place}",
            a="aligned" if side == "a" else "sft",
            reward_difference=rewards[place - 1] if rewards else None,
        )
        for place, side in enumerate(system_is_a, start=1)
    ]
    same = [KeyPair(id=f"same-{place}", subset="helpful-base", pair=f"same-{place}") for place in range(identical)]
    return Key(export="e", system="aligned", against="sft", seed=1, items=items, identical=same)


def ballot(rater: str, *votes: str) -> Ballot:
    """Votes on the items in their order; an empty one is missing."""
    return Ballot(rater, {f"{place:03d}": vote for place, vote in enumerate(votes, start=1) if vote})


def test_votes_are_unblinded(params: EvaluateParams) -> None:
    results = assess(key_of("abab"), [ballot("Ana", A_WINS, A_WINS, B_WINS, B_WINS)], params)
    # The system wins as A on 1, loses as B on 2, loses as A on 3, wins as B on 4.
    total = results["majority"]["total"]
    assert (total["win"], total["tie"], total["lose"], total["win_rate"]) == (0.5, 0, 0.5, 0.5)
    assert results["majority"]["harmless-base"]["pairs"] == 2
    assert results["raters"]["Ana"]["outcomes"] == total


def test_shares_have_wilson_intervals(params: EvaluateParams) -> None:
    total = assess(key_of("aaaa"), [ballot("Ana", A_WINS, A_WINS, A_WINS, A_WINS)], params)["majority"]["total"]
    # Wilson for 4 of 4: low = n / (n + z^2).
    assert (total["win_low"], total["win_high"]) == (pytest.approx(4 / (4 + 1.959964**2), abs=1e-6), 1)


def test_skips_and_missing_votes_are_counted_not_used(params: EvaluateParams) -> None:
    results = assess(key_of("aaaa"), [ballot("Ana", A_WINS, SKIP, "", "tie")], params)
    rater = results["raters"]["Ana"]
    assert (rater["votes"], rater["skipped"], rater["missing"]) == (2, 1, 1)
    assert rater["outcomes"]["win_rate"] == 0.75
    assert results["majority"]["total"]["pairs"] == 2


def test_only_skips_are_nothing_to_count(params: EvaluateParams) -> None:
    with pytest.raises(UserError, match="all votes are skips"):
        assess(key_of("aa"), [ballot("Ana", SKIP, SKIP)], params)


def test_the_majority_decides_and_without_one_it_is_a_tie(params: EvaluateParams) -> None:
    ballots = [
        ballot("Ana", A_WINS, A_WINS, A_WINS, A_WINS),
        ballot("Ben", A_WINS, B_WINS, "tie", A_WINS),
        ballot("Eva", B_WINS, "tie", "tie", ""),
    ]
    results = assess(key_of("aaaa"), ballots, params)
    total = results["majority"]["total"]
    # Item 1: two of three for the system; 2: one vote each; 3: two ties; 4: both that voted.
    assert (total["win"], total["tie"]) == (0.5, 0.5)
    assert results["without_majority"] == 1


def test_identical_answers_count_as_ties_in_a_figure_of_their_own(params: EvaluateParams) -> None:
    results = assess(key_of("aa", identical=2), [ballot("Ana", A_WINS, A_WINS)], params)
    assert results["majority"]["total"]["win_rate"] == 1
    assert (results["with_identical"]["pairs"], results["with_identical"]["win_rate"]) == (4, 0.75)


def test_two_raters_who_always_prefer_the_first_answer_do_not_agree(params: EvaluateParams) -> None:
    """Unblinded, their votes are the same wins and losses, which would look like perfect agreement."""
    always_a = [A_WINS] * 6
    results = assess(key_of("ababab"), [ballot("Ana", *always_a), ballot("Ben", *always_a)], params)
    assert results["cohen"][0]["three_way"] is None
    assert results["raters"]["Ana"]["prefers_a"]["share"] == 1


def test_kappa_is_computed_on_the_items_that_both_voted_on(params: EvaluateParams) -> None:
    ballots = [ballot("Ana", A_WINS, B_WINS, "tie", A_WINS), ballot("Ben", "A much better", B_WINS, SKIP, "")]
    (pair,) = assess(key_of("aaaa"), ballots, params)["cohen"]
    assert (pair["raters"], pair["items"]) == (["Ana", "Ben"], 2)
    assert pair["three_way"]["kappa"] == 1
    assert pair["five_way_weighted"]["kappa"] < 1  # better is not much better


def test_fleiss_is_given_for_three_raters_over_the_items_of_all(params: EvaluateParams) -> None:
    ballots = [ballot(name, A_WINS, B_WINS, "tie", "tie" if name != "Eva" else "") for name in ("Ana", "Ben", "Eva")]
    results = assess(key_of("aaaa"), ballots, params)
    assert results["fleiss"] == {"raters": 3, "items": 3, "three_way": 1.0}
    assert len(results["cohen"]) == 3
    assert assess(key_of("aaaa"), ballots[:2], params)["fleiss"] is None


def test_the_majority_is_compared_with_the_reward_model(params: EvaluateParams) -> None:
    key = key_of("aabb", rewards=[1.0, -1.0, 0.1, -2.0])
    votes = ballot("Ana", A_WINS, A_WINS, "tie", A_WINS)  # outcomes: win, win, tie, lose
    plain = assess(key, [votes], params)["agreement"]["reward_model"]
    banded = assess(key, [votes], params, tie_band=0.2)["agreement"]["reward_model"]
    assert (plain["pairs"], plain["agreement"], plain["decided"]) == (4, 0.5, 3)
    assert plain["decided_agreement"] == pytest.approx(2 / 3, abs=1e-6)
    assert banded["agreement"] == 0.75


def verdicts(folder: Path, outcomes: Mapping[str, int | None], system: str = "aligned", against: str = "sft") -> Path:
    table = pd.DataFrame({"pair": list(outcomes), "outcome": pd.array(list(outcomes.values()), dtype="Int8")})
    path = folder / "verdicts.parquet"
    table.assign(system=system, against=against).to_parquet(path)
    return path


def test_the_majority_is_compared_with_the_judge_on_the_same_texts(tmp_path: Path, params: EvaluateParams) -> None:
    path = verdicts(tmp_path, {"pair-1": 1, "pair-2": -1, "pair-3": None, "other": 1})
    results = assess(key_of("aaa"), [ballot("Ana", A_WINS, A_WINS, A_WINS)], params, verdicts=path)
    assert results["agreement"]["judge"]["pairs"] == 2
    assert results["agreement"]["judge"]["agreement"] == 0.5


def test_verdicts_of_the_opposite_comparison_are_turned(tmp_path: Path, params: EvaluateParams) -> None:
    path = verdicts(tmp_path, {"pair-1": -1}, system="sft", against="aligned")
    results = assess(key_of("a"), [ballot("Ana", A_WINS)], params, verdicts=path)
    assert results["agreement"]["judge"]["agreement"] == 1


@pytest.mark.parametrize(
    ("outcomes", "system", "sentence"),
    [
        ({"pair-1": 1}, "base", "does not compare aligned with sft"),
        ({"other": 1}, "aligned", "no verdict on any answer"),
    ],
)
def test_verdicts_on_something_else_are_refused(
    tmp_path: Path, params: EvaluateParams, outcomes: dict[str, int | None], system: str, sentence: str
) -> None:
    path = verdicts(tmp_path, outcomes, system=system)
    with pytest.raises(UserError, match=sentence):
        assess(key_of("a"), [ballot("Ana", A_WINS)], params, verdicts=path)


def test_the_results_are_json_and_are_printed(params: EvaluateParams) -> None:
    key = key_of("abab", rewards=[1, 1, 1, -1], identical=1)
    ballots = [ballot("Ana", A_WINS, "tie", B_WINS, SKIP), ballot("Ben [x]", A_WINS, A_WINS, B_WINS, "tie")]
    ballots.append(ballot("Eva", *["tie"] * 4))
    ballots[0].comments["001"] = "Nearly the same."
    results = assess(key, ballots, params)
    assert json.loads(json.dumps(results)) == results
    assert results["comments"] == [{"rater": "Ana", "item": "001", "id": "row-1", "comment": "Nearly the same."}]

    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_results(results, console)
    text = console.export_text()
    for part in (
        "aligned against sft",
        "Ben [x]",
        "Majority",
        "1 skipped",
        "Cohen's kappa, Ana and Ben",
        "Fleiss' kappa",
    ):
        assert part in text
    assert "Agreement with the reward model, 4 pairs" in text


# --- kappas

SCORES = st.sampled_from((-2, -1, 0, 1, 2))


@given(st.lists(st.tuples(SCORES, SCORES), min_size=2, max_size=30), st.booleans())
def test_cohens_kappa_is_the_one_of_sklearn(pairs: list[tuple[int, int]], weighted: bool) -> None:
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    result = cohen(first, second, (-2, -1, 0, 1, 2), weighted=weighted)
    if len({*first, *second}) == 1:
        assert result is None
        return
    labels = [-2, -1, 0, 1, 2]
    expected = cohen_kappa_score(first, second, labels=labels, weights="quadratic" if weighted else None)
    assert result is not None
    assert result["kappa"] == pytest.approx(expected, abs=1e-6)
    if result["kappa_low"] is not None and result["kappa_high"] is not None:
        assert -1 <= result["kappa_low"] < result["kappa_high"] <= 1


def test_fleiss_kappa_of_its_usual_example() -> None:
    """Ten subjects, fourteen raters, five categories: 0.210 (Fleiss 1971, as in textbooks)."""
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    votes = np.array([np.repeat(range(5), row) for row in counts])
    assert fleiss(votes) == pytest.approx(0.210, abs=5e-4)


def test_full_agreement_claims_no_certainty() -> None:
    assert cohen([1, 0, -1], [1, 0, -1], (-1, 0, 1)) == {"kappa": 1, "kappa_low": None, "kappa_high": None}


def test_kappas_without_spread_or_items_are_not_defined() -> None:
    assert cohen([], [], (-1, 0, 1)) is None
    assert fleiss(np.zeros((4, 3), dtype=int)) is None
    assert fleiss(np.zeros((0, 3), dtype=int)) is None


def test_agreement_without_a_decided_pair_has_no_decided_share() -> None:
    figures = outcome_agreement([0, 1], [1, 0], 0.95)
    assert (figures["agreement"], figures["decided"], figures["decided_agreement"]) == (0, 0, None)


def test_the_labels_are_symmetrical() -> None:
    assert [label.replace("A", "B") for label in LABELS[:2]] == list(LABELS[:2:-1])
