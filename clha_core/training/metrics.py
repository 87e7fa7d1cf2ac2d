"""Means over rows, micro-batches, steps and processes: a sum and a count each, divided when a line is logged."""

from collections import defaultdict

import torch
from accelerate import Accelerator
from torch import Tensor

from clha_core.losses import ABSENT, present_pairs, similar_pairs
from clha_core.losses.ranking import ranked_candidates
from clha_core.training.config import CLHAConfig
from clha_core.training.methods import Scores


class RunningMeans:
    """Weighted means by name."""

    def __init__(self) -> None:
        self._sums: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, name: str, total: Tensor, count: Tensor) -> None:
        """Add values that sum to `total`, `count` of them; both scalars."""
        self._sums[name].append(torch.stack([total.detach().double(), count.double()]))

    def add_nothing(self, names_of: "RunningMeans") -> None:
        """Names that count nothing here, and are taken from there: all processes have to take the same names."""
        for name, values in names_of._sums.items():
            self._sums[name].append(torch.zeros_like(values[0]))
        names_of._sums.clear()

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """The means over all processes since the last call; nothing for a name that counted nothing."""
        names = sorted(self._sums)
        if not names:
            return {}
        own = torch.stack([torch.stack(self._sums[name]).sum(0) for name in names])
        self._sums.clear()
        totals = accelerator.reduce(own, reduction="sum")
        return {name: (total / count).item() for name, (total, count) in zip(names, totals, strict=True) if count}


def record_scores(means: RunningMeans, args: CLHAConfig, scores: Scores, reward_gap: float) -> None:
    """TRL's figures of a batch, and clha's masks.

    `rewards/*` are implicit rewards of the best- and of the worst-rated candidate: mean log-prob per token, for dpo and
    ipo beta times the log-ratio to the reference as in TRL, for simpo beta times the mean. `logps/*` are sums.
    """
    implicit = scores.means
    if args.method == "dpo":
        implicit = args.beta * (scores.sums - scores.reference)
    elif args.method == "ipo":
        implicit = args.beta * (scores.sums - scores.reference) / scores.lengths
    elif args.method == "simpo":
        implicit = args.beta * scores.means
    rewards, implicit, sums = ranked_candidates(scores.rewards, implicit, scores.sums)
    last = (rewards > ABSENT).sum(dim=1, keepdim=True) - 1

    def worst(values: Tensor) -> Tensor:
        return values.gather(1, last).squeeze(1)

    rows = torch.tensor(float(len(rewards)))
    values = {
        "rewards/chosen": implicit[:, 0],
        "rewards/rejected": worst(implicit),
        "rewards/accuracies": (implicit[:, 0] > worst(implicit)).float(),
        "rewards/margins": implicit[:, 0] - worst(implicit),
        "logps/chosen": sums[:, 0],
        "logps/rejected": worst(sums),
        "reward_model/margins": rewards[:, 0] - worst(rewards),
    }
    for name, value in values.items():
        means.add(name, value.sum(), rows.to(value.device))
    if args.method == "clha":
        means.add("sft/gated", (rewards[:, 0] <= 0).sum(), rows.to(rewards.device))
        means.add("pairs/masked", similar_pairs(rewards, 1, reward_gap).sum(), present_pairs(rewards, 1).sum())
