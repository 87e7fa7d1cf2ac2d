"""Writers of responses: each has a latent skill, on which every choice in a response depends."""

import random

from clha_core.sample.knowledge import (
    ATTRIBUTES,
    MISTAKEN_TIPS,
    SAFE_TIPS,
    UNSAFE,
    addressed,
    other_attribute,
)
from clha_core.sample.questions import FactRequest, Request, SafeRequest, UnsafeRequest
from clha_core.sample.sentences import (
    ALTERNATIVE,
    CLOSING,
    COMPLIANCE,
    NAMED_REFUSAL,
    NAMED_TIP,
    PLAIN_REFUSAL,
    PLAIN_TIP,
    POLITE,
    RUDE,
    VAGUE,
    fact_sentence,
)

SKILL_EXPONENT = 1.4  # above 1: more writers of low skill
COMPLIANCE_WEIGHTS = (7, 1, 1, 1)  # one usual bad answer, for the reason given at knowledge.DOMAINS

# Of the wrong facts: the usual misconception, then any other value, then (the rest) a fact about another thing.
MISCONCEPTION_SHARE = 0.85
OTHER_VALUE_SHARE = 0.08
MISTAKEN_TIP_SHARE = 0.8  # of the wrong tips: the usual wrong one; the rest are any tip


class Writer:
    """Writes responses with a skill in [0, 1) drawn once."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._skill = rng.random() ** SKILL_EXPONENT

    def respond(self, request: Request) -> str:
        """A response of one to six sentences to `request`."""
        return self._compose(self._opening(), self._body(request))

    def respond_with_fact(self, request: FactRequest) -> str:
        """A response that surely names the thing and answers rightly: the turn before a follow-up question."""
        return self._compose(self._opening(), self._facts(request, certain=True))

    def _chance(self, worst: float, best: float) -> bool:
        """True with a probability between that of the worst and that of the best writer."""
        return self._rng.random() < worst + (best - worst) * self._skill

    def _opening(self) -> list[str]:
        if self._chance(0.35, 0.03):
            return [self._rng.choice(RUDE)]
        return [self._rng.choice(POLITE)] if self._chance(0.25, 0.65) else []

    def _compose(self, opening: list[str], body: list[str]) -> str:
        sentences = opening + body
        if self._chance(0.25, 0.05):
            sentences.append(sentences[-1])
        if self._chance(0.15, 0.5):
            sentences.append(self._rng.choice(CLOSING))
        return " ".join(sentences)

    def _body(self, request: Request) -> list[str]:
        if isinstance(request, UnsafeRequest):
            return self._reply_to_unsafe(request)
        if isinstance(request, SafeRequest):
            if self._chance(0.35, 0.03):
                return [self._refusal(request.act)]
        elif self._chance(0.15, 0.03):
            return [PLAIN_REFUSAL]
        if self._chance(0.25, 0.05):
            return [self._rng.choice(VAGUE)]
        if isinstance(request, SafeRequest):
            return [self._tip(request.act)]
        return self._facts(request, certain=False)

    def _reply_to_unsafe(self, request: UnsafeRequest) -> list[str]:
        if self._chance(0.1, 0.75):
            sentences = [self._refusal(request.act)]
            if self._chance(0.2, 0.7):
                sentences.append(UNSAFE[self._category(request)].reason)
            if self._chance(0.15, 0.7):
                alternative = UNSAFE[self._category(request)].alternative
                sentences.append(ALTERNATIVE.format(alternative=alternative))
            return sentences
        if self._chance(0.85, 0.6):
            return self._rng.choices(COMPLIANCE, COMPLIANCE_WEIGHTS)
        return [self._rng.choice(VAGUE)]

    def _refusal(self, act: str) -> str:
        return self._rng.choice((PLAIN_REFUSAL, NAMED_REFUSAL.format(act=addressed(act))))

    def _category(self, request: UnsafeRequest) -> str:
        return request.category if self._chance(0.6, 1.0) else self._rng.choice(list(UNSAFE))

    def _tip(self, act: str) -> str:
        if self._chance(0.15, 0.8):
            tip = SAFE_TIPS[act]
        elif self._rng.random() < MISTAKEN_TIP_SHARE:
            tip = MISTAKEN_TIPS[act]
        else:
            tip = self._rng.choice(list(SAFE_TIPS.values()))
        return self._rng.choice((NAMED_TIP, PLAIN_TIP)).format(act=addressed(act), tip=tip)

    def _facts(self, request: FactRequest, certain: bool) -> list[str]:
        """The fact asked for and, at times, one that was not."""
        sentences = [self._fact(request.thing, request.attribute, certain or self._chance(0.12, 0.8))]
        if self._chance(0.15, 0.6):
            extra = other_attribute(request.attribute)
            sentences.append(self._fact(request.thing, extra, self._chance(0.25, 0.8)))
        return sentences

    def _fact(self, thing: str, name: str, right: bool) -> str:
        attribute = ATTRIBUTES[name]
        fact = attribute.facts[thing]
        value = fact.true
        if not right:
            kind = self._rng.random()
            if kind < MISCONCEPTION_SHARE:
                value = fact.misconception
            elif kind < MISCONCEPTION_SHARE + OTHER_VALUE_SHARE:
                value = self._rng.choice([v for v in attribute.values if v != fact.true])
            else:
                thing = self._rng.choice([t for t in attribute.facts if t != thing])
                value = self._rng.choice(attribute.values)
        return fact_sentence(self._rng.choice(attribute.answers), thing, value)
