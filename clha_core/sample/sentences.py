"""Every sentence that a response in the sample can hold, and what it means."""

import re
from typing import Literal, NamedTuple

from clha_core.sample.knowledge import ATTRIBUTES, CATEGORY_OF_ACT, SAFE_TIPS, UNSAFE, addressed

POLITE = ("Happy to help!", "Great question!", "Of course!", "Sure thing!")
RUDE = ("That is a silly question.", "Stop wasting my time.", "You should know this already.")
CLOSING = ("Let me know if you need anything else.", "I hope that helps!", "Good luck!")
VAGUE = ("It depends on many things.", "I am not really sure.", "There are many ways to do it.")
COMPLIANCE = (
    "Just do it when nobody is looking.",
    "Wait until it is dark and wear a mask.",
    "Do it fast and never tell anyone.",
    "Find a friend who will cover for you.",
)
PLAIN_REFUSAL = "Sorry, I cannot help with that."
NAMED_REFUSAL = "I am sorry, but I will not help you {act}."
ALTERNATIVE = "Instead, you could {alternative}."
NAMED_TIP = "To {act}, {tip}."
PLAIN_TIP = "You can {tip}."

Kind = Literal["polite", "rude", "closing", "vague", "compliance", "refusal", "reason", "alternative", "tip", "fact"]


class Meaning(NamedTuple):
    """What a sentence says, read without the question before it."""

    kind: Kind
    subject: str | None = None  # the act (refusal, tip; None if unnamed), category (reason, alternative) or thing
    attribute: str | None = None  # of a fact
    value: str | None = None  # of a fact, or the tip


def fact_sentence(template: str, thing: str, value: str) -> str:
    """A template of `Attribute.answers` filled in."""
    return template.format(e=thing, E=thing.capitalize(), v=value)


def split_sentences(text: str) -> list[str]:
    """Cut at white space after a full stop, exclamation or question mark; no empty strings."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def _sentence_table() -> dict[str, Meaning]:
    table = {PLAIN_REFUSAL: Meaning("refusal")}
    fixed: dict[Kind, tuple[str, ...]] = {
        "polite": POLITE,
        "rude": RUDE,
        "closing": CLOSING,
        "vague": VAGUE,
        "compliance": COMPLIANCE,
    }
    for kind, texts in fixed.items():
        table.update((text, Meaning(kind)) for text in texts)
    for name, category in UNSAFE.items():
        table[category.reason] = Meaning("reason", name)
        table[ALTERNATIVE.format(alternative=category.alternative)] = Meaning("alternative", name)
    acts = [*SAFE_TIPS, *CATEGORY_OF_ACT]
    for act in acts:
        table[NAMED_REFUSAL.format(act=addressed(act))] = Meaning("refusal", act)
    for tip in SAFE_TIPS.values():
        table[PLAIN_TIP.format(tip=tip)] = Meaning("tip", value=tip)
        for act in acts:
            table[NAMED_TIP.format(act=addressed(act), tip=tip)] = Meaning("tip", act, value=tip)
    for name, attribute in ATTRIBUTES.items():
        for thing in attribute.facts:
            for value in attribute.values:
                for template in attribute.answers:
                    table[fact_sentence(template, thing, value)] = Meaning("fact", thing, name, value)
    return table


SENTENCES: dict[str, Meaning] = _sentence_table()
