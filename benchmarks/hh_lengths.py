"""Token lengths of real HH-RLHF rows.

Only lengths matter to speed, so `hh_lengths.csv` keeps them and nothing else. It is made from the harmless-base rows by

    python -m benchmarks.hh_lengths ../shared/hh-rlhf/harmless-base/train.jsonl.gz

with a byte-level BPE of 8,192 tokens trained on the same rows, prompts truncated from the left to 384 tokens and prompt
and response together to 512, as in the paper. These rows are too few for a BPE of 32,000 tokens (it ends at 21,000), so
models with that vocabulary get the same lengths.
"""

import csv
import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

LENGTHS_FILE = Path(__file__).with_name("hh_lengths.csv")
BPE_TOKENS = 8192
MAX_LENGTH, MAX_PROMPT_LENGTH = 512, 384


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt and of each of its responses, EOS included."""

    prompt: int
    responses: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest response."""
        return self.prompt + max(self.responses)


def read_lengths(n: int, seed: int = 0) -> list[Lengths]:
    """All rows of `hh_lengths.csv`. Candidates beyond the two of HH get the length of another row's response."""
    with LENGTHS_FILE.open(encoding="utf-8", newline="") as file:
        triples = [(int(prompt), int(chosen), int(rejected)) for prompt, chosen, rejected in list(csv.reader(file))[1:]]
    chance = random.Random(seed)
    rows = []
    for prompt, chosen, rejected in triples:
        more = [min(chance.choice(triples)[1], MAX_LENGTH - prompt) for _ in range(n - 2)]
        rows.append(Lengths(prompt, (chosen, rejected, *more)))
    return rows


def measure_lengths(file: Path) -> list[Lengths]:
    """Tokenise a gzipped file of HH-RLHF rows; rows that do not parse are left out."""
    from clha_core.data.dialogue import RowError, parse_row
    from clha_core.models.scratch import train_tokenizer
    from clha_core.tokenization import encode_row

    rows: list[dict[str, Any]] = []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            try:
                row = parse_row(json.loads(line))
            except RowError:
                continue
            rows.append({"prompt": row.prompt, "responses": row.responses})
    tokenizer = train_tokenizer(rows, BPE_TOKENS)
    encoded = [
        encode_row(
            tokenizer,
            row["prompt"],
            row["responses"],
            prompt_format="hh",
            max_length=MAX_LENGTH,
            max_prompt_length=MAX_PROMPT_LENGTH,
        )
        for row in rows
    ]
    return [Lengths(len(one.prompt_ids), tuple(map(len, one.response_ids))) for one in encoded]


def main(file: Annotated[Path, typer.Argument(help="HH-RLHF's harmless-base/train.jsonl.gz.")]) -> None:
    """Write hh_lengths.csv anew."""
    rows = measure_lengths(file)
    with LENGTHS_FILE.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["prompt", "chosen", "rejected"])
        writer.writerows([row.prompt, *row.responses] for row in rows)
    typer.echo(f"{len(rows)} rows in {LENGTHS_FILE}")


if __name__ == "__main__":
    typer.run(main)
