"""Rows for the benchmarks: a few batches that stand for the whole of HH, as random tokens."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.hh_lengths import Lengths, read_lengths

# What group_by_length of transformers sorts at a time, in batches.
WINDOW = 50
SHUFFLES = 51
PAD_ID = 0


@dataclass(frozen=True)
class Row:
    """A tokenised preference row, the best candidate first: `rewards` descend."""

    prompt_ids: list[int]
    response_ids: list[list[int]]
    rewards: list[float]


@dataclass(frozen=True)
class Draw:
    """The same rows twice: with random batch mates, and with batch mates of similar length.

    Attributes:
        padding: padded by real tokens of `shuffled`, each candidate rank padded to its longest in the batch.
    """

    shuffled: list[list[Row]]
    grouped: list[list[Row]]
    padding: float


def tokens(row: Row) -> int:
    """Tokens of all candidates, each with a prompt of its own, without padding."""
    return len(row.prompt_ids) * len(row.response_ids) + sum(map(len, row.response_ids))


def longest_sequence(row: Row) -> int:
    """Tokens of the prompt with the longest response."""
    return len(row.prompt_ids) + max(map(len, row.response_ids))


def in_batches(rows: Sequence[Lengths], samples: int) -> list[list[Lengths]]:
    """Consecutive rows, `samples` at a time; an incomplete last batch is left out."""
    return [list(rows[start : start + samples]) for start in range(0, len(rows) - samples + 1, samples)]


def padding_ratio(batches: Sequence[Sequence[Lengths]]) -> float:
    """Padded by real tokens, each candidate rank of a batch padded to its longest sequence."""
    padded = real = 0
    for batch in batches:
        for rank in range(len(batch[0].responses)):
            sizes = [row.prompt + row.responses[rank] for row in batch]
            padded += len(batch) * max(sizes)
            real += sum(sizes)
    return padded / real


def draw(*, n: int, samples: int, batches: int, vocab_size: int, seed: int = 0) -> Draw:
    """`batches` batches of `samples` rows with n candidates each.

    A window of 50 batches is sorted by length, as group_by_length does, and evenly spaced batches of it are taken. The
    same rows are also shuffled: of 51 shuffles the one is used whose padding is nearest to that of the whole file, so
    that nobody owes a result to a lucky draw.
    """
    chance = random.Random(seed)
    everything = read_lengths(n, seed)
    window = sorted(chance.sample(everything, WINDOW * samples), key=lambda row: row.longest, reverse=True)
    groups = in_batches(window, samples)
    grouped = [groups[int((index + 0.5) * WINDOW / batches)] for index in range(batches)]
    rows = [row for batch in grouped for row in batch]
    usual = padding_ratio(in_batches(everything, samples))
    shuffles = [in_batches(chance.sample(rows, len(rows)), samples) for _ in range(SHUFFLES)]
    shuffled = min(shuffles, key=lambda batches: abs(padding_ratio(batches) - usual))
    return Draw(
        [[random_row(lengths, vocab_size, chance) for lengths in batch] for batch in shuffled],
        [[random_row(lengths, vocab_size, chance) for lengths in batch] for batch in grouped],
        padding_ratio(shuffled),
    )


def random_row(lengths: Lengths, vocab_size: int, chance: random.Random) -> Row:
    """Random tokens of the given lengths, none of them padding.

    Rewards differ by more than CLHA's gap and the best one is positive, so every term of the loss trains.
    """

    ids = range(PAD_ID + 1, vocab_size)
    return Row(
        prompt_ids=chance.choices(ids, k=lengths.prompt),
        response_ids=[chance.choices(ids, k=length) for length in lengths.responses],
        rewards=[4.0 * rank for rank in range(len(lengths.responses), 0, -1)],
    )
