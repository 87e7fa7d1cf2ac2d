"""A project folder with ingested rows and tiny policies, for what the stage `candidates` does with it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import tiny

from clha_core import paths
from clha_core.data.dialogue import Preference
from clha_core.data.tables import CANDIDATES_SCHEMA, PreferenceWriter, read_table
from clha_core.params import Params
from clha_core.stages import candidates

MakeParams = Callable[..., Params]


def write_rows(root: Path, train: int = 6, validation: int = 2) -> None:
    """Ingested rows with two candidates each; row number n of a split asks its own question."""
    (root / paths.INGESTED).mkdir(parents=True)
    for split, count in (("train", train), ("validation", validation)):
        with PreferenceWriter(root / paths.INGESTED / f"{split}.parquet") as writer:
            for number in range(count):
                prompt = [{"role": "user", "content": f"What of {split} {number}?"}]
                if number % 2:  # a second turn, so that prompts have several lengths
                    prompt += [{"role": "assistant", "content": "Say more."}, {"role": "user", "content": "Please."}]
                responses = [f"good {number}", f"bad {number}"]
                preference = Preference(prompt, responses, ["chosen", "rejected"])  # type: ignore[arg-type]
                writer.add(f"tiny/{split}/{number:06d}", "tiny", preference)
    (root / "data/augmented").mkdir()


def write_file(root: Path, name: str, *lines: Mapping[str, Any] | str) -> None:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (root / "data/augmented" / name).write_text(text + "\n", encoding="utf-8")


def save_policy(folder: Path, seed: int = 0) -> Path:
    """A policy that ends soon: a quarter of all tokens end its answers, as a chat model may have several that do."""
    made = tiny.tokenizer()
    model = tiny.llama(made, seed)
    model.generation_config.eos_token_id = [made.eos_token_id, *range(10, 90)]
    return tiny.save(model, made, folder)


def read(root: Path, split: str = "train") -> list[dict[str, Any]]:
    """Rows of data/candidates."""
    return read_table(root / paths.CANDIDATES / f"{split}.parquet", CANDIDATES_SCHEMA).to_pylist()


def metrics_of(root: Path) -> dict[str, Any]:
    return json.loads((root / paths.CANDIDATES_METRICS).read_text(encoding="utf-8"))


def origins_of(root: Path) -> dict[str, Any]:
    return json.loads((root / paths.CANDIDATES / "origins.json").read_text(encoding="utf-8"))


def run(root: Path, params: Params) -> dict[str, Any]:
    """Run the stage; gives its metrics, of which every response and every line has to be accounted for."""
    candidates.run(params, root)
    metrics = metrics_of(root)
    for counts in metrics["by_origin"].values():
        outcomes = [value for name, value in counts.items() if name not in ("generated", "failures")]
        assert counts["generated"] == sum(outcomes)
        assert counts["failed"] == sum(counts["failures"].values())
    files = metrics["files"]
    assert files["rows_in"] == files["accepted"] + files["quarantined"] == files["accepted"] + len(quarantined(root))
    rows = read(root) + read(root, "validation")
    assert metrics["rows"] == len(rows)
    assert metrics["candidates"] == sum(len(row["responses"]) for row in rows)
    assert all(len(row["responses"]) == len(row["sources"]) == len(row["origins"]) for row in rows)
    return metrics


def quarantined(root: Path) -> list[dict[str, Any]]:
    lines = (root / paths.CANDIDATES / paths.QUARANTINE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def ingested(root: Path, split: str) -> pa.Table:
    return read_table(root / paths.INGESTED / f"{split}.parquet")
