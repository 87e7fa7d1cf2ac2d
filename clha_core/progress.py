"""Progress of trainings: one bar, with what it is of and its newest figures, in place of a line for every log entry."""

from typing import Any

from tqdm.auto import tqdm
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

# By their names in log lines; what else there is goes to the tracker and the curves.
SHOWN = {"loss": "loss", "eval_loss": "eval", "rewards/margins": "margin", "rewards/accuracies": "accuracy"}


class FiguresOnBar(ProgressCallback):
    """transformers' bar, which says what it is of and holds the newest figures."""

    def __init__(self, description: str) -> None:
        super().__init__()
        self.description = description
        self.figures: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(self.description)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        bar: tqdm | None = self.training_bar
        if bar is not None:
            self.figures |= {SHOWN[name]: f"{value:.4g}" for name, value in (logs or {}).items() if name in SHOWN}
            bar.set_postfix(self.figures)


def show_figures_on_bar(trainer: Trainer, description: str) -> None:
    """Give a trainer this bar in place of its own."""
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(FiguresOnBar(description))
