"""Trainer arguments for trainings that keep nothing but their final weights."""

import tempfile
from pathlib import Path

from transformers import TrainingArguments


def bare_arguments(*, max_steps: int, batch_size: int, learning_rate: float, seed: int) -> TrainingArguments:
    """A fixed number of steps with warm-up and cosine decay; no checkpoints, no reports.

    Batches are grouped by the dataset's column `length`, which halves the padding.
    """
    return TrainingArguments(
        output_dir=str(Path(tempfile.gettempdir()) / "clha-unused"),
        max_steps=max_steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, max_steps // 20),
        max_grad_norm=1.0,
        seed=seed,
        save_strategy="no",
        report_to="none",
        logging_steps=max(1, max_steps // 10),
        remove_unused_columns=False,
        train_sampling_strategy="group_by_length",
        dataloader_pin_memory=False,
    )
