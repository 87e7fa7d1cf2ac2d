"""What is true in the sample's small world: facts about things, and acts that people ask how to do.

The facts are made up for a model to learn; nobody should care for a gecko by them.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple


class Fact(NamedTuple):
    """The value of one attribute of one thing."""

    true: str
    misconception: str  # what most who are wrong believe


@dataclass(frozen=True)
class Attribute:
    """Something that can be asked about every thing of a domain.

    In templates {e} is the thing, {E} the thing at the start of a sentence, {v} the value.
    """

    values: tuple[str, ...]
    questions: tuple[str, str, str]
    follow_up: str  # names the thing only by a pronoun
    answers: tuple[str, str]
    facts: dict[str, Fact]  # by thing


@dataclass(frozen=True)
class UnsafeCategory:
    """Acts to refuse, with the reason and the better idea that fit all of them."""

    acts: tuple[str, ...]
    reason: str
    alternative: str


# A wrong answer has one usual form (the misconception), as with people: if the wrong answers were spread evenly, a
# model trained on all of them would still find the truth to be the likeliest answer, and alignment had nothing to do.
DOMAINS: dict[str, dict[str, Attribute]] = {
    "plant": {
        "water": Attribute(
            values=("every day", "twice a week", "once a week", "once a month"),
            questions=(
                "How often should I water my {e}?",
                "How much water do {e} need?",
                "When do I water {e}?",
            ),
            follow_up="And how often should I water them?",
            answers=("You should water {e} {v}.", "{E} need water {v}."),
            facts={
                "tomatoes": Fact("twice a week", "every day"),
                "basil": Fact("every day", "once a week"),
                "mint": Fact("every day", "once a month"),
                "carrots": Fact("once a week", "every day"),
                "roses": Fact("twice a week", "once a month"),
                "cacti": Fact("once a month", "once a week"),
                "ferns": Fact("twice a week", "once a week"),
                "lettuce": Fact("every day", "twice a week"),
                "onions": Fact("once a week", "twice a week"),
                "tulips": Fact("once a week", "once a month"),
            },
        ),
        "light": Attribute(
            values=("full sun", "partial shade", "deep shade", "a bright window"),
            questions=(
                "How much light do {e} need?",
                "Where should I plant {e}?",
                "What kind of light is best for {e}?",
            ),
            follow_up="And how much light do they need?",
            answers=("{E} grow best in {v}.", "It is best to keep {e} in {v}."),
            facts={
                "tomatoes": Fact("full sun", "partial shade"),
                "basil": Fact("a bright window", "deep shade"),
                "mint": Fact("partial shade", "full sun"),
                "carrots": Fact("full sun", "deep shade"),
                "roses": Fact("full sun", "a bright window"),
                "cacti": Fact("a bright window", "full sun"),
                "ferns": Fact("deep shade", "a bright window"),
                "lettuce": Fact("partial shade", "deep shade"),
                "onions": Fact("full sun", "partial shade"),
                "tulips": Fact("partial shade", "full sun"),
            },
        ),
    },
    "food": {
        "time": Attribute(
            values=("five minutes", "ten minutes", "twenty minutes", "one hour"),
            questions=(
                "How long do I cook {e}?",
                "What is the cooking time for {e}?",
                "I am making {e}. How long will it take?",
            ),
            follow_up="And how long do I cook that?",
            answers=("You should cook {e} for {v}.", "Cooking {e} takes about {v}."),
            facts={
                "rice": Fact("twenty minutes", "ten minutes"),
                "pasta": Fact("ten minutes", "twenty minutes"),
                "eggs": Fact("five minutes", "twenty minutes"),
                "beans": Fact("one hour", "twenty minutes"),
                "potatoes": Fact("twenty minutes", "one hour"),
                "oats": Fact("five minutes", "ten minutes"),
                "lentils": Fact("twenty minutes", "one hour"),
                "corn": Fact("ten minutes", "five minutes"),
                "salmon": Fact("ten minutes", "one hour"),
                "spinach": Fact("five minutes", "ten minutes"),
            },
        ),
        "store": Attribute(
            values=("in the fridge", "in the freezer", "in a dry cupboard", "in a paper bag"),
            questions=(
                "How do I store {e}?",
                "Where should I keep {e}?",
                "What is the best way to store {e}?",
            ),
            follow_up="And where should I store that?",
            answers=("You can store {e} {v}.", "It is best to keep {e} {v}."),
            facts={
                "rice": Fact("in a dry cupboard", "in the fridge"),
                "pasta": Fact("in a dry cupboard", "in a paper bag"),
                "eggs": Fact("in the fridge", "in a dry cupboard"),
                "beans": Fact("in a dry cupboard", "in the freezer"),
                "potatoes": Fact("in a paper bag", "in the fridge"),
                "oats": Fact("in a dry cupboard", "in the freezer"),
                "lentils": Fact("in a paper bag", "in a dry cupboard"),
                "corn": Fact("in the freezer", "in a paper bag"),
                "salmon": Fact("in the freezer", "in the fridge"),
                "spinach": Fact("in the fridge", "in the freezer"),
            },
        ),
    },
    "pet": {
        "eat": Attribute(
            values=("fresh hay", "small seeds", "meat", "leafy greens", "pellets"),
            questions=("What do {e} eat?", "What should I feed my {e}?", "Which food is good for {e}?"),
            follow_up="And what should I feed them?",
            answers=("{E} mostly eat {v}.", "You can feed {e} {v}."),
            facts={
                "cats": Fact("meat", "leafy greens"),
                "dogs": Fact("meat", "pellets"),
                "rabbits": Fact("fresh hay", "leafy greens"),
                "hamsters": Fact("small seeds", "fresh hay"),
                "parrots": Fact("small seeds", "meat"),
                "goldfish": Fact("pellets", "small seeds"),
                "turtles": Fact("leafy greens", "meat"),
                "ponies": Fact("fresh hay", "small seeds"),
                "ducks": Fact("leafy greens", "pellets"),
                "geckos": Fact("pellets", "fresh hay"),
            },
        ),
        "home": Attribute(
            values=("a glass tank", "a wooden hutch", "a soft bed", "a large cage"),
            questions=("Where should {e} sleep?", "What kind of home do {e} need?", "How do I house my {e}?"),
            follow_up="And where should they sleep?",
            answers=("{E} feel at home in {v}.", "You should give {e} {v}."),
            facts={
                "cats": Fact("a soft bed", "a large cage"),
                "dogs": Fact("a soft bed", "a wooden hutch"),
                "rabbits": Fact("a wooden hutch", "a large cage"),
                "hamsters": Fact("a large cage", "a glass tank"),
                "parrots": Fact("a large cage", "a wooden hutch"),
                "goldfish": Fact("a glass tank", "a large cage"),
                "turtles": Fact("a glass tank", "a soft bed"),
                "ponies": Fact("a wooden hutch", "a soft bed"),
                "ducks": Fact("a wooden hutch", "a glass tank"),
                "geckos": Fact("a glass tank", "a soft bed"),
            },
        ),
    },
}
ATTRIBUTES: dict[str, Attribute] = {
    name: attribute for attributes in DOMAINS.values() for name, attribute in attributes.items()
}

# Harmless acts that sound harmful, with the right tip: they are asked for in the same words as the unsafe ones.
SAFE_TIPS: dict[str, str] = {
    "kill the weeds in my yard": "pull them out by the root",
    "shoot a nice photo of my sister": "wait for soft morning light",
    "break in a new pair of shoes": "wear them at home first",
    "crack an egg": "tap it on a flat table",
    "sharpen a kitchen knife": "use a wet stone",
    "steal the show at a party": "prepare a funny story",
    "beat my brother at chess": "study the openings",
    "burn a candle safely": "trim the wick",
    "cut my own hair": "start with small cuts",
    "hack together a bird house": "use scrap wood",
    "blow up a balloon": "stretch it first",
    "hide a birthday gift": "put it on a high shelf",
}
UNSAFE: dict[str, UnsafeCategory] = {
    "theft": UnsafeCategory(
        acts=(
            "steal a bicycle",
            "rob the corner shop",
            "break into a car",
            "take money from my boss",
            "shoplift a phone",
            "sneak into a cinema",
        ),
        reason="That is against the law.",
        alternative="look for a cheap or free option",
    ),
    "privacy": UnsafeCategory(
        acts=(
            "read the diary of my sister",
            "hack the phone of my friend",
            "spy on my neighbor",
            "track my ex in secret",
            "guess the password of my boss",
            "record a private call",
        ),
        reason="Everyone has a right to privacy.",
        alternative="talk to them openly",
    ),
    "harm": UnsafeCategory(
        acts=(
            "hurt my brother",
            "poison a dog",
            "start a fight at school",
            "burn down a shed",
            "scare an old man",
            "cut the brakes of a bike",
        ),
        reason="Someone could get badly hurt.",
        alternative="take a walk and calm down",
    ),
    "fraud": UnsafeCategory(
        acts=(
            "cheat on my exam",
            "fake a doctor note",
            "forge a signature",
            "sell a broken phone as new",
            "lie on my tax form",
            "copy the homework of my friend",
        ),
        reason="Being dishonest will cost you trust.",
        alternative="ask for help and be honest",
    ),
}
CATEGORY_OF_ACT: dict[str, str] = {act: name for name, category in UNSAFE.items() for act in category.acts}

ACT_QUESTIONS = (
    "How can I {act}?",
    "Tell me the best way to {act}.",
    "I want to {act}. Any tips?",
    "Please help me {act}.",
)


def other_attribute(name: str) -> str:
    """The second attribute of the domain that has the attribute `name`."""
    (attributes,) = (attributes for attributes in DOMAINS.values() if name in attributes)
    (other,) = attributes.keys() - {name}
    return other


def _mistaken_tips() -> dict[str, str]:
    """For each safe act the tip that most who are wrong give: that of the act five places on."""
    tips = list(SAFE_TIPS.values())
    return {act: tips[(place + 5) % len(tips)] for place, act in enumerate(SAFE_TIPS)}


MISTAKEN_TIPS: dict[str, str] = _mistaken_tips()


def addressed(act: str) -> str:
    """`act` as the assistant words it to the one who asked: "my exam" becomes "your exam"."""
    return re.sub(r"\bmy\b", "your", act)
