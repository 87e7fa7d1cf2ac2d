"""Which split a prompt goes to."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clha_core.data.dialogue import Turn
from clha_core.data.splits import assign_split, prompt_key


def user(content: str) -> list[Turn]:
    return [Turn(role="user", content=content)]


def test_a_key_does_not_change_between_versions_and_machines() -> None:
    assert prompt_key(user("Hi"), seed=1).hex() == "9138aebf016440fb490f36ebdc877cf5"


def test_another_seed_shuffles_the_prompts() -> None:
    prompts = [user(str(i)) for i in range(50)]
    first, second = (sorted(range(50), key=lambda i: prompt_key(prompts[i], seed)) for seed in (1, 2))
    assert first != second


def test_the_same_text_cut_into_other_turns_is_another_prompt() -> None:
    one = [*user("a"), Turn(role="assistant", content="b"), *user("c")]
    assert prompt_key(one, 1) != prompt_key(user("a b c"), 1)
    assert prompt_key(user("a"), 1) != prompt_key([Turn(role="system", content="a")], 1)


@pytest.mark.parametrize("carve_test", [False, True])
def test_validation_and_a_carved_test_get_their_share_of_the_prompts(carve_test: bool) -> None:
    keys = [prompt_key(user(str(i)), seed=3) for i in range(4000)]
    counts = Counter(assign_split(key, 0.1, carve_test) for key in keys)
    assert counts["validation"] == pytest.approx(400, abs=80)
    assert counts["test"] == (pytest.approx(400, abs=80) if carve_test else 0)


@given(st.binary(min_size=16, max_size=16), st.floats(0.01, 0.49), st.floats(0.01, 0.49))
def test_a_larger_share_takes_prompts_from_train_only(key: bytes, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    before, after = assign_split(key, smaller, True), assign_split(key, larger, True)
    assert before in (after, "train")
