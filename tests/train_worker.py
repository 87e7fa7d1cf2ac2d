"""One process of trainings that a test starts: `train_worker.py JSON`, a list of them. Each writes what it ends in."""

import json
import sys
from pathlib import Path
from typing import Any

import tiny
import torch
import yaml
from datasets import Dataset
from transformers import TrainerCallback, set_seed

from clha_core import CLHAConfig, CLHATrainer
from clha_core.params import LoraParams
from clha_core.params.file import parse_params
from clha_core.training.adapters import lora_config, save_adapted
from clha_core.training.align import last_checkpoint

PARAMS = Path(__file__).parents[1] / "params.yaml"


class StopAfter(TrainerCallback):
    """Ends a training as a crash would, with the checkpoints so far."""

    def __init__(self, steps: int | None) -> None:
        self.steps = steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.steps:
            raise KeyboardInterrupt


def train(
    out: str, rows: int, model: str | None = None, rank: int = 0, stop_after: int | None = None, **settings: Any
) -> None:
    """Train a tiny model, or the one in a folder, on random rows, from the last checkpoint if there is one.

    Args:
        rank: of an adapter to train instead of the weights; 0 for none.
    """
    data = tiny.random_rows(rows, n=3, seed=5)
    data[2] = tiny.random_rows(1, n=2, seed=6)[0]  # a ragged row
    folder = Path(out)
    args = CLHAConfig(
        output_dir=str(folder / "run"),
        disable_tqdm=True,
        logging_steps=1,
        learning_rate=1e-3,
        max_length=96,
        max_prompt_length=64,
        **{"use_cpu": True, **settings},
    )
    set_seed(1)
    tokenizer = tiny.tokenizer()
    dataset = Dataset.from_list(data)
    adapter = LoraParams(rank=rank, alpha=2 * rank, dropout=0.0, targets="all-linear") if rank else None
    trainer = CLHATrainer(
        model or tiny.llama(tokenizer),
        args,
        dataset,
        dataset.select(range(6)),
        processing_class=tokenizer,
        callbacks=[StopAfter(stop_after)],
        peft_config=lora_config(adapter) if adapter else None,
    )
    checkpoint = last_checkpoint(folder / "run")
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        return
    own = sum(elements_here(parameter) for parameter in trainer.model.parameters())
    folder.mkdir(exist_ok=True)
    (folder / f"parameters-{args.process_index}").write_text(str(own))
    if adapter:
        policy = parse_params(yaml.safe_load(PARAMS.read_text()), PARAMS.name).policy
        save_adapted(trainer, Path(str(model)), policy, folder / "model")
    else:
        trainer.save_model(str(folder / "model"))
    if trainer.is_world_process_zero():
        (folder / "log.json").write_text(json.dumps(trainer.state.log_history))


def elements_here(parameter: Any) -> int:
    """Of a weight, those that this process holds."""
    part = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return part.numel() + (parameter.ds_tensor.numel() if hasattr(parameter, "ds_tensor") else 0)


def main() -> None:
    """Run the trainings one after another."""
    torch.set_num_threads(1)
    for settings in json.loads(sys.argv[1]):
        train(**settings)


if __name__ == "__main__":
    main()
