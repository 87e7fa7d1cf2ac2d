"""The sample as preference data in HH's layout, and the truth behind its labels.

Everything random comes from three streams a split: prompts with the first two responses, further responses, labels.
So the label noise changes nothing but labels, the number of candidates changes nothing but `augmented`, and a
larger sample begins with the smaller one.
"""

import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from clha_core.params import SampleParams
from clha_core.sample.gold import score
from clha_core.sample.prompts import Prompt, Split, render, sample_prompt
from clha_core.sample.questions import UnsafeRequest
from clha_core.sample.writer import Writer


class LabelTruth(NamedTuple):
    """What is known of one row's label: whether noise flipped it, and the gold rewards of its responses."""

    flipped: bool
    gold: tuple[float, ...]  # chosen, rejected, then augmented in the row's order


class _Dialogue(NamedTuple):
    prompt: Prompt
    responses: tuple[str, ...]  # chosen, rejected, augmented
    truth: LabelTruth


def generate_rows(params: SampleParams, split: Split) -> Iterator[dict[str, Any]]:
    """The rows of one split: chosen, rejected, subset, and with more than two candidates a list `augmented`.

    Dialogues are full HH texts; those of one row differ only in the last assistant turn. No row repeats another
    one's prompt and pair of responses. The subset is "harmless" for unsafe requests, "helpful" for the others.
    """
    for prompt, responses, _ in _dialogues(params, split):
        chosen, rejected, *augmented = (
            render([*prompt.turns, {"role": "assistant", "content": response}]) for response in responses
        )
        subset = "harmless" if isinstance(prompt.request, UnsafeRequest) else "helpful"
        row: dict[str, Any] = {"chosen": chosen, "rejected": rejected, "subset": subset}
        if augmented:
            row["augmented"] = augmented
        yield row


def label_truth(params: SampleParams, split: Split) -> Iterator[LabelTruth]:
    """What is known of the labels of `generate_rows`, row by row in the same order."""
    for dialogue in _dialogues(params, split):
        yield dialogue.truth


def _dialogues(params: SampleParams, split: Split) -> Iterator[_Dialogue]:
    pairs, extras, labels = (
        random.Random(f"{params.seed}/{split}/{stream}") for stream in ("pairs", "extras", "labels")
    )
    # Test is what results are measured on, so its labels are as good as labels get: no flips.
    rows, noise = (params.train_pairs, params.label_noise) if split == "train" else (params.test_pairs, 0.0)
    seen: set[tuple[str, frozenset[str]]] = set()
    while len(seen) < rows:
        prompt = sample_prompt(pairs, split)
        pair = _distinct_responses(pairs, prompt, [], 2)
        key = (render(prompt.turns), frozenset(pair))
        if key in seen:
            continue
        seen.add(key)
        responses = _distinct_responses(extras, prompt, pair, params.candidates)
        gold = [score(prompt.request, response) for response in responses]
        preferred = _prefers_first(labels, gold[0], gold[1])
        flipped = labels.random() < noise
        if preferred == flipped:
            responses[:2] = responses[1::-1]
            gold[:2] = gold[1::-1]
        yield _Dialogue(prompt, tuple(responses), LabelTruth(flipped, tuple(gold)))


def _distinct_responses(rng: random.Random, prompt: Prompt, given: list[str], count: int) -> list[str]:
    """`given` and new responses, each by another writer, `count` together and all different."""
    responses = list(given)
    while len(responses) < count:
        response = Writer(rng).respond(prompt.request)
        if response not in responses:
            responses.append(response)
    return responses


def _prefers_first(rng: random.Random, first: float, second: float) -> bool:
    """A Bradley-Terry comparison at temperature 1."""
    return rng.random() < 1.0 / (1.0 + math.exp(second - first))
