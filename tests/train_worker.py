"""One process of a training that a test starts: `train_worker.py JSON`. Writes losses, and weights where told to."""

import json
import sys
from pathlib import Path

import tiny
import torch
from datasets import Dataset
from transformers import set_seed

from clha_core import CLHAConfig, CLHATrainer


def main() -> None:
    """Train a tiny model on random rows."""
    settings = json.loads(sys.argv[1])
    out = Path(settings.pop("out"))
    rows = tiny.random_rows(settings.pop("rows"), n=3, seed=5)
    rows[2] = tiny.random_rows(1, n=2, seed=6)[0]  # a ragged row
    torch.set_num_threads(1)
    args = CLHAConfig(
        output_dir=str(out / "run"),
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
    data = Dataset.from_list(rows)
    trainer = CLHATrainer(tiny.llama(tokenizer), args, data, data.select(range(6)), processing_class=tokenizer)
    resumed = (out / "run").is_dir() and any((out / "run").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=resumed or None)
    own = sum(
        (parameter.to_local() if hasattr(parameter, "to_local") else parameter).numel()
        for parameter in trainer.model.parameters()
    )
    (out / f"parameters-{args.process_index}").write_text(str(own))
    trainer.save_model(str(out / "model"))
    if trainer.is_world_process_zero():
        (out / "log.json").write_text(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    main()
