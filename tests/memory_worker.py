"""One process of a training that a test starts: `memory_worker.py OUT MODEL...`. Writes what memory the last took."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tiny
import torch
import yaml
from datasets import Dataset

from clha_core import CLHAConfig, CLHATrainer
from clha_core.models.loading import load_trained
from clha_core.params.file import parse_params

PARAMS = Path(__file__).parents[1] / "params.yaml"


def resident() -> int:
    """Bytes in memory that are this process' own: not those of mapped files, whose pages the system may drop."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def peak(into: dict[str, int], name: str) -> Iterator[None]:
    """Record the most memory that the block takes beyond what there was before it, looked at every millisecond."""
    before = most = resident()
    done = threading.Event()

    def look() -> None:
        nonlocal most
        while not done.wait(0.001):
            most = max(most, resident())

    watcher = threading.Thread(target=look)
    watcher.start()
    yield
    done.set()
    watcher.join()
    into[name] = most - before


def main() -> None:
    """Read a model, score the reference of DPO with it, and write it; smaller ones before, for what libraries take."""
    out, *models = sys.argv[1:]
    torch.set_num_threads(1)
    rows = Dataset.from_list(tiny.random_rows(4))
    params = parse_params(yaml.safe_load(PARAMS.read_text()), PARAMS.name).policy
    found: dict[str, int] = {}
    for model in models:
        args = CLHAConfig(output_dir=f"{out}/run", method="dpo", use_cpu=True, disable_tqdm=True, rows_per_step=2)
        with peak(found, "reading"):
            policy = load_trained(Path(model), params, args.mixed_precision)
            trainer = CLHATrainer(policy, args, rows, processing_class=tiny.tokenizer())
        with peak(found, "writing"):
            trainer.save_model(f"{out}/model")
    Path(out, f"peaks-{args.process_index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
