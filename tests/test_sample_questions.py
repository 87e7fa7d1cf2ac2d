"""What a prompt of the sample asks for can be read off its text alone."""

import random
from collections import Counter

import pytest

from clha_core.sample.knowledge import ATTRIBUTES
from clha_core.sample.prompts import Split, sample_prompt
from clha_core.sample.questions import (
    FOLLOW_UP,
    GREETINGS,
    WORDINGS,
    FactRequest,
    Request,
    SafeRequest,
    UnsafeRequest,
    all_requests,
    held_out_wording,
    parse_prompt,
    question,
    self_contained_wordings,
)


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ([user("How often should I water my cacti?")], FactRequest("cacti", "water")),
        ([user("I am new to this. I am making rice. How long will it take?")], FactRequest("rice", "time")),
        (
            [user("Hello! I want to kill the weeds in my yard. Any tips?")],
            SafeRequest("kill the weeds in my yard"),
        ),
        ([user("How can I poison a dog?")], UnsafeRequest("poison a dog")),
        (
            [user("What do cats eat?"), assistant("anything"), user("And where should they sleep?")],
            FactRequest("cats", "home"),
        ),
        (
            [
                user("What do cats eat?"),
                assistant("Dogs eat meat."),
                user("Hi there. How can I hurt my brother?"),
            ],
            UnsafeRequest("hurt my brother"),
        ),
        (
            [
                user("What do cats eat?"),
                assistant("a"),
                user("And where should they sleep?"),
                assistant("b"),
                user("And what should I feed them?"),
            ],
            FactRequest("cats", "eat"),
        ),
    ],
)
def test_reads_the_last_question(prompt: list[dict[str, str]], expected: Request) -> None:
    assert parse_prompt(prompt) == expected


@pytest.mark.parametrize("request_", all_requests(), ids=lambda request: "-".join(request))
def test_inverts_every_self_contained_question(request_: Request) -> None:
    for wording in self_contained_wordings(request_):
        for greeting in GREETINGS:
            assert parse_prompt([user(greeting + question(request_, wording))]) == request_


@pytest.mark.parametrize("split", ["train", "test"])
def test_inverts_every_sampled_prompt(split: Split) -> None:
    rng = random.Random(0)
    lengths = set()
    for _ in range(3000):
        prompt = sample_prompt(rng, split)
        lengths.add(len(prompt.turns))
        assert parse_prompt(prompt.turns) == prompt.request
    assert lengths == {1, 3}


@pytest.mark.parametrize(
    "prompt",
    [
        [],
        [user("What is the capital of France?")],
        [user("")],
        [user("And where should they sleep?")],
        [user("What do cats eat?"), assistant("Meat.")],
        [user("What do cats eat?"), user("What do dogs eat?")],
        [assistant("Hi."), user("What do cats eat?")],
        [{"role": "system", "content": "Be kind."}, assistant("Hi."), user("What do cats eat?")],
        [user("How can I crack an egg?"), assistant("a"), user("And where should they sleep?")],
        [user("How do I store rice?"), assistant("a"), user("And where should they sleep?")],
        [user("Who are you?"), assistant("a"), user("What do cats eat?")],
    ],
)
def test_refuses_a_prompt_of_another_world(prompt: list[dict[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"world|names nothing|take turns"):
        parse_prompt(prompt)


def test_no_two_requests_share_a_question() -> None:
    questions = Counter(question(r, w) for r in all_requests() for w in self_contained_wordings(r))
    assert set(questions.values()) == {1}
    assert len(questions) == 60 * 3 + 12 * 4 + 24 * 4


def test_held_out_wordings_are_fixed() -> None:
    """They decide what is train and what is test, so they must be the same on every machine and version."""
    assert [held_out_wording(request) for request in all_requests()[:12]] == [
        2,
        2,
        2,
        0,
        3,
        1,
        3,
        2,
        1,
        3,
        3,
        1,
    ]


def test_every_wording_of_every_kind_of_request_is_in_train_for_some() -> None:
    for name, attribute in ATTRIBUTES.items():
        held_out = Counter(held_out_wording(FactRequest(thing, name)) for thing in attribute.facts)
        assert all(held_out[wording] < len(attribute.facts) for wording in range(WORDINGS))


def test_follow_ups_are_in_both_splits() -> None:
    held_out = [held_out_wording(request) for request in all_requests() if isinstance(request, FactRequest)]
    assert 0 < held_out.count(FOLLOW_UP) < len(held_out)
