"""A table as the evaluate stage writes it, for what compares two systems' answers."""

from pathlib import Path

import numpy as np
import pandas as pd

# Names that occur nowhere else in a page, and rewards with digits that nothing else has.
SYSTEM, AGAINST = "quokka", "numbat"
HOSTILE = (
    """</script><script>document.title="caught"</script><img src=x onerror="document.title='caught'">"""
    """ {{ 7 * 7 }} &amp; <b>$x$</b>"""
)


def generations(count: int = 12, *, identical: int = 0, seed: int = 0) -> pd.DataFrame:
    """Rows in which the system's answer says "good" and the other "poor"; the last `identical` rows are alike."""
    place = np.arange(count)
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "id": [f"row-{i:04d}" for i in place],
            "subset": np.where(place % 3 == 0, "harmless-base", "helpful-base"),
            "prompt": [f"Human: Question {i}?" for i in place],
            "human_chosen": [f"The human answer {i}." for i in place],
            "human_chosen_reward": rng.normal(size=count),
        }
    )
    for system, kind in ((SYSTEM, "good"), (AGAINST, "poor")):
        texts = [f"A {kind} answer to {i}." if i < count - identical else f"The same answer to {i}." for i in place]
        rows[f"{system}_response"] = texts
        rows[f"{system}_finished"] = True
        rows[f"{system}_reward"] = rng.normal(size=count) + (kind == "good")
        rows[f"{system}_gold"] = rows[f"{system}_reward"] + rng.normal(size=count)
    return rows


def write_generations(rows: pd.DataFrame, folder: Path) -> Path:
    path = folder / "generations.parquet"
    rows.to_parquet(path, index=False)
    return path
