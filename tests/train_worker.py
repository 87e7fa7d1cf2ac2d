"""One process of trainings that a test starts: `train_worker.py JSON`, a list of them. Each writes losses and weights."""

import json
import sys
from pathlib import Path
from typing import Any

import tiny
import torch
from datasets import Dataset
from transformers import set_seed

from clha_core import CLHAConfig, CLHATrainer
from clha_core.training.align import last_checkpoint


def train(out: str, rows: int, model: str | None = None, **settings: Any) -> None:
    """Train a tiny model, or the one in a folder, on random rows, from the last checkpoint if there is one."""
    data = tiny.random_rows(rows, n=3, seed=5)
    data[2] = tiny.random_rows(1, n=2, seed=6)[0]  # a ragged row
    folder = Path(out)
    args = CLHAConfig(
        output_dir=str(folder / "run"),
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        learning_rate=1e-3,
        max_length=96,
        max_prompt_length=64,
        **settings,
    )
    set_seed(1)
    tokenizer = tiny.tokenizer()
    dataset = Dataset.from_list(data)
    trainer = CLHATrainer(
        model or tiny.llama(tokenizer), args, dataset, dataset.select(range(6)), processing_class=tokenizer
    )
    checkpoint = last_checkpoint(folder / "run")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    own = sum(
        (parameter.to_local() if hasattr(parameter, "to_local") else parameter).numel()
        for parameter in trainer.model.parameters()
    )
    folder.mkdir(exist_ok=True)
    (folder / f"parameters-{args.process_index}").write_text(str(own))
    trainer.save_model(str(folder / "model"))
    if trainer.is_world_process_zero():
        (folder / "log.json").write_text(json.dumps(trainer.state.log_history))


def main() -> None:
    """Run the trainings one after another."""
    torch.set_num_threads(1)
    for settings in json.loads(sys.argv[1]):
        train(**settings)


if __name__ == "__main__":
    main()
