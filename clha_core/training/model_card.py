"""The model card that lies beside trained weights."""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from clha_core.markdown import as_text
from clha_core.params import OptimParams, flatten
from clha_core.training.config import CLHAConfig

TEXT = """---
{data}
---

# A language model trained with {method}

{about}

Trained on {rows} rows of preferences by the CLHA pipeline; the checkpoint is that of step {best_step}, the best on the
validation split.

| validation | |
|---|---|
{metrics}

| parameter | |
|---|---|
{parameters}

It is as helpful and as harmless as its data and its reward model, and no more: evaluate it on prompts of your own
before it answers people.
"""
ABOUT = {
    "clha": "Contrastive learning for human alignment (arXiv 2403.16649): pairs of candidates contrasted by reward, "
    "pairs of similar reward masked, good answers imitated.",
    "sft": "Supervised fine-tuning on the best-rated candidates.",
}


def write_model_card(
    out: Path, config: CLHAConfig, optim: OptimParams, best_step: int, metrics: Mapping[str, float], *, rows: int
) -> None:
    """Write README.md to a model's folder; equal trainings give equal bytes."""
    data = ModelCardData(library_name="transformers", pipeline_tag="text-generation", tags=["clha", config.method])
    card = TEXT.format(
        data=data.to_yaml(),
        method=config.method.upper(),
        about=ABOUT.get(config.method, f"The loss is {config.method.upper()} (clha_core.losses)."),
        rows=rows,
        best_step=best_step,
        metrics="\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.items()),
        parameters="\n".join(
            f"| {name} | {as_text(str(value))} |" for name, value in flatten(optim.model_dump(mode="json"))
        ),
    )
    ModelCard(card).save(out / "README.md")
