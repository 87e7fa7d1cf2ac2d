"""Prompts of the sample: a request in one of its wordings, at times after an earlier exchange."""

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from clha_core.sample.knowledge import CATEGORY_OF_ACT, DOMAINS, SAFE_TIPS, other_attribute
from clha_core.sample.questions import (
    FOLLOW_UP,
    GREETINGS,
    FactRequest,
    Request,
    SafeRequest,
    UnsafeRequest,
    held_out_wording,
    question,
    self_contained_wordings,
)
from clha_core.sample.writer import Writer

Split = Literal["train", "test"]

FACT_SHARE = 0.55
SAFE_SHARE = 0.15  # the rest are unsafe
EARLIER_TOPIC_SHARE = 0.2  # prompts that come after a question about something else
FOLLOW_UP_SHARE = 0.2  # fact requests that name the thing only in the turn before


class Prompt(NamedTuple):
    """What is asked, and the turns that ask it ({"role": ..., "content": ...}, a user turn last)."""

    request: Request
    turns: list[dict[str, str]]


def sample_prompt(rng: random.Random, split: Split) -> Prompt:
    """Draw a prompt whose last turn is in a held-out wording if and only if `split` is test.

    Earlier turns are never in a held-out wording, in either split.
    """
    while True:
        request = _sample_request(rng)
        context = rng.random()
        follow_up = (
            isinstance(request, FactRequest) and EARLIER_TOPIC_SHARE <= context < EARLIER_TOPIC_SHARE + FOLLOW_UP_SHARE
        )
        wording = FOLLOW_UP if follow_up else rng.choice(self_contained_wordings(request))
        # Drawing again keeps the mix of requests and contexts: each has one wording in four held out.
        if (wording == held_out_wording(request)) == (split == "test"):
            break
    asked = question(request, wording)
    if isinstance(request, FactRequest) and follow_up:
        earlier = FactRequest(request.thing, other_attribute(request.attribute))
        turns = _exchange(rng, earlier, Writer(rng).respond_with_fact(earlier))
    elif context < EARLIER_TOPIC_SHARE:
        topic = _sample_request(rng)
        turns = _exchange(rng, topic, Writer(rng).respond(topic))
    else:
        turns = []
        asked = rng.choice(GREETINGS) + asked
    return Prompt(request, [*turns, {"role": "user", "content": asked}])


def render(turns: Sequence[dict[str, str]]) -> str:
    """Turns as HH text, without the opening of the assistant's next turn."""
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in turns)


def _sample_request(rng: random.Random) -> Request:
    share = rng.random()
    if share < FACT_SHARE:
        name, attribute = rng.choice(list(rng.choice(list(DOMAINS.values())).items()))
        return FactRequest(rng.choice(list(attribute.facts)), name)
    if share < FACT_SHARE + SAFE_SHARE:
        return SafeRequest(rng.choice(list(SAFE_TIPS)))
    return UnsafeRequest(rng.choice(list(CATEGORY_OF_ACT)))


def _exchange(rng: random.Random, request: Request, response: str) -> list[dict[str, str]]:
    wording = rng.choice([w for w in self_contained_wordings(request) if w != held_out_wording(request)])
    return [
        {"role": "user", "content": rng.choice(GREETINGS) + question(request, wording)},
        {"role": "assistant", "content": response},
    ]
