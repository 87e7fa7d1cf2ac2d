"""What a user can ask for, the wordings to ask in, and how to read the request back from a prompt's text."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clha_core.sample.knowledge import ACT_QUESTIONS, ATTRIBUTES, CATEGORY_OF_ACT, SAFE_TIPS

# The empty one stands twice: having no greeting is twice as likely as any other.
GREETINGS = ("", "", "Hi there. ", "Hello! ", "I am new to this. ", "Quick question. ")

FOLLOW_UP = 3  # the wording of a fact request that needs an earlier turn to name the thing
WORDINGS = 4  # of every request


class FactRequest(NamedTuple):
    """Asks for one attribute of one thing."""

    thing: str
    attribute: str


class SafeRequest(NamedTuple):
    """Asks for help with a harmless act."""

    act: str


class UnsafeRequest(NamedTuple):
    """Asks for help with an act that should be refused."""

    act: str

    @property
    def category(self) -> str:
        return CATEGORY_OF_ACT[self.act]


Request = FactRequest | SafeRequest | UnsafeRequest


def all_requests() -> list[Request]:
    """Every request of the world, in a fixed order."""
    requests: list[Request] = [
        FactRequest(thing, name) for name, attribute in ATTRIBUTES.items() for thing in attribute.facts
    ]
    requests.extend(SafeRequest(act) for act in SAFE_TIPS)
    requests.extend(UnsafeRequest(act) for act in CATEGORY_OF_ACT)
    return requests


def question(request: Request, wording: int) -> str:
    """The request as text, without a greeting. `wording` is 0 to 3; 3 is the follow-up of a fact request."""
    if not isinstance(request, FactRequest):
        return ACT_QUESTIONS[wording].format(act=request.act)
    attribute = ATTRIBUTES[request.attribute]
    if wording == FOLLOW_UP:
        return attribute.follow_up
    return attribute.questions[wording].format(e=request.thing)


def self_contained_wordings(request: Request) -> range:
    """The wordings that need no earlier turn."""
    return range(FOLLOW_UP if isinstance(request, FactRequest) else WORDINGS)


def held_out_wording(request: Request) -> int:
    """The one wording of `request` that only the test split asks.

    Exactly one a request, by a hash: so train never sees a combination that test asks for, yet what test asks for
    can always be learned from the three other wordings, and both splits have the same mix of requests.
    """
    digest = hashlib.sha256("/".join((type(request).__name__, *request)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % WORDINGS


def _question_table() -> dict[str, Request]:
    return {
        question(request, wording): request
        for request in all_requests()
        for wording in self_contained_wordings(request)
    }


_QUESTIONS = _question_table()
_FOLLOW_UPS = {attribute.follow_up: name for name, attribute in ATTRIBUTES.items()}


def _parse_question(text: str, earlier: Request | None) -> Request:
    text = text.strip()
    for greeting in sorted(set(GREETINGS), key=len, reverse=True):
        if text.startswith(greeting):
            text = text.removeprefix(greeting)
            break
    if text in _QUESTIONS:
        return _QUESTIONS[text]
    if text not in _FOLLOW_UPS:
        raise ValueError(f"not a question of the sample's world: {text!r}")
    attribute = _FOLLOW_UPS[text]
    if not isinstance(earlier, FactRequest) or earlier.thing not in ATTRIBUTES[attribute].facts:
        raise ValueError(f"the turn before names nothing that {text!r} could be about")
    return FactRequest(earlier.thing, attribute)


def parse_prompt(prompt: Sequence[Mapping[str, str]]) -> Request:
    """Read off what the last turn of a prompt asks for; a pronoun stands for what the user asked about before.

    Args:
        prompt: turns {"role": ..., "content": ...}, user and assistant in turn, user first and last.

    Raises:
        ValueError: the turns are in another order, or a user turn is not a question of this world.
    """
    roles = [turn["role"] for turn in prompt]
    if len(roles) % 2 == 0 or roles != [("user", "assistant")[i % 2] for i in range(len(roles))]:
        raise ValueError(f"user and assistant must take turns and the user must end, but the roles are {roles}")
    request: Request | None = None
    for turn in prompt[::2]:
        request = _parse_question(turn["content"], request)
    assert request is not None  # an odd number of turns is at least one
    return request
