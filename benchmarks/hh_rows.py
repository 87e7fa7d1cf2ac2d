"""Made-up dialogues of HH-RLHF's size and shape, for measuring how fast they are read.

Only sizes matter to speed, so the text is noise. How many turns a dialogue has and how long they are follows the 1,791
rows of HH's harmless-base whose lengths are in `hh_lengths.csv` too; how many rows a subset has is HH's own count.
"""

import gzip
import json
import math
import random
import string
from collections.abc import Iterator
from pathlib import Path

# Subset: rows of train and test.
HH_ROWS = {
    "harmless-base": (42_537, 2_312),
    "helpful-base": (43_835, 2_354),
    "helpful-online": (22_007, 1_137),
    "helpful-rejection-sampled": (52_421, 2_749),
}
HH_TRAIN_ROWS = sum(train for train, _ in HH_ROWS.values())  # 160,800

PROMPT_TURNS = (1, 3, 5, 7, 9, 11, 13, 15, 19)
PROMPT_TURN_WEIGHTS = (521, 452, 454, 270, 57, 13, 11, 5, 4)
# Characters are log-normal: median, and standard deviation of the logarithm.
TURN_CHARS = (63, 1.0)
RESPONSE_CHARS = (127, 0.95)
# Of 1,000 rows, six cannot be used, as in the real ones: repeated speakers and empty replies.
REPEATED_SPEAKER_SHARE, EMPTY_REPLY_SHARE = 0.004, 0.002
_POOL_CHARS = 1 << 21
_LONGEST = 4_000


def write_hh(folder: Path, train_rows: int = HH_TRAIN_ROWS, seed: int = 0) -> int:
    """Write <folder>/<subset>/{train,test}.jsonl.gz and return how many rows they have, test included.

    Args:
        train_rows: of all subsets together, shared out as in HH; test shrinks alike.
    """
    rows = random.Random(seed)
    pool = _text_pool(rows)
    written = 0
    for subset, sizes in HH_ROWS.items():
        (folder / subset).mkdir(parents=True, exist_ok=True)
        for split, size in zip(("train", "test"), sizes, strict=True):
            count = math.ceil(size * train_rows / HH_TRAIN_ROWS)
            with gzip.open(folder / subset / f"{split}.jsonl.gz", "wt", compresslevel=1, encoding="utf-8") as lines:
                lines.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in _rows(rows, pool, count))
            written += count
    return written


def _rows(rng: random.Random, pool: str, count: int) -> Iterator[dict[str, str]]:
    for turns in rng.choices(PROMPT_TURNS, PROMPT_TURN_WEIGHTS, k=count):
        speakers = ["Human", "Assistant"] * (turns // 2) + ["Human"]
        if rng.random() < REPEATED_SPEAKER_SHARE:
            speakers.append("Human")
        prompt = "".join(f"\n\n{speaker}: {_text(rng, pool, *TURN_CHARS)}" for speaker in speakers)
        chosen, rejected = (f"{prompt}\n\nAssistant: {_text(rng, pool, *RESPONSE_CHARS)}" for _ in range(2))
        if rng.random() < EMPTY_REPLY_SHARE:
            rejected = f"{prompt}\n\nAssistant:"
        yield {"chosen": chosen, "rejected": rejected}


def _text(rng: random.Random, pool: str, median: float, spread: float) -> str:
    """A slice of the pool; starts and ends within words do no harm here, blanks at the ends would."""
    length = min(max(2, round(rng.lognormvariate(math.log(median), spread))), _LONGEST)
    start = rng.randrange(len(pool) - length)
    return f"x{pool[start : start + length - 2]}y"


def _text_pool(rng: random.Random) -> str:
    """Words, sentences, some paragraphs, and the curly apostrophes that most real dialogues have."""
    pieces: list[str] = []
    size = 0
    while size < _POOL_CHARS:
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 9)))
        ending = rng.choices((" ", "\u2019s ", ". ", ", ", "\n\n"), (200, 4, 16, 16, 1))[0]
        pieces.append(word + ending)
        size += len(word) + len(ending)
    return "".join(pieces)
