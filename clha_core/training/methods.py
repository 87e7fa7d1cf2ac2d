"""One switch over the losses: from a batch's log-probs to the loss of the configured method and its parts."""

from dataclasses import dataclass

from torch import Tensor

from clha_core.losses import (
    Totals,
    clha_loss,
    dpo_loss,
    ipo_loss,
    orpo_loss,
    pro_loss,
    rrhf_loss,
    sft_loss,
    simpo_loss,
)
from clha_core.losses.clha import adaptive_sft_loss
from clha_core.losses.ranking import ranked_candidates
from clha_core.training.config import CLHAConfig


@dataclass(frozen=True)
class Scores:
    """What a method may look at, each (batch, n); slots without a candidate have the reward -inf and length 1.

    Attributes:
        sums: log-prob of each response given its prompt, summed over its tokens.
        lengths: number of those tokens.
        rewards: by which candidates are ranked.
        reference_sums: `sums` under the reference model, for the methods that need it.
    """

    sums: Tensor
    lengths: Tensor
    rewards: Tensor
    reference_sums: Tensor | None = None

    @property
    def means(self) -> Tensor:
        """Log-probs per token."""
        return self.sums / self.lengths

    @property
    def reference(self) -> Tensor:
        """`reference_sums`, which the trainer has for every method that asks."""
        assert self.reference_sums is not None
        return self.reference_sums


def method_loss(
    args: CLHAConfig, scores: Scores, reward_gap: float, totals: Totals
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of `args.method`, and its parts by the names that logs show.

    Args:
        reward_gap: clha's gap, in units of the rewards.
        totals: counts of the whole step: the losses of its micro-batches add up to the step's loss.
    """
    sums, means, lengths, rewards = scores.sums, scores.means, scores.lengths, scores.rewards
    match args.method:
        case "clha":
            loss = clha_loss(
                means if args.logp_normalisation == "mean" else sums,
                sums,
                rewards,
                margin=args.margin,
                reward_gap=reward_gap,
                sft_weight=args.sft_weight,
                reward_mask=args.reward_mask,
                scale_margin=args.scale_margin,
                gate_sft=args.gate_sft,
                totals=totals,
            )
            return loss.total, {"loss/contrastive": loss.contrastive, "loss/sft": loss.sft}
        case "sft":
            return sft_loss(sums, lengths, rewards, totals=totals), {}
        case "pro":
            # PRO's own code adds the same likelihood term, without a gate.
            ranked_rewards, ranked_sums = ranked_candidates(rewards, sums)
            sft = adaptive_sft_loss(
                ranked_sums, ranked_rewards, sft_weight=args.sft_weight, gate_sft=False, totals=totals
            )
            ranking = pro_loss(means, rewards, totals=totals)
            return ranking + sft, {"loss/ranking": ranking, "loss/sft": sft}
        case "rrhf":
            sft = args.sft_weight * sft_loss(sums, lengths, rewards, totals=totals)
            ranking = rrhf_loss(means, rewards, totals=totals)
            return ranking + sft, {"loss/ranking": ranking, "loss/sft": sft}
        case "dpo":
            return dpo_loss(sums, scores.reference, rewards, beta=args.beta, totals=totals), {}
        case "ipo":
            return ipo_loss(means, scores.reference / lengths, rewards, beta=args.beta, totals=totals), {}
        case "simpo":
            return simpo_loss(means, rewards, beta=args.beta, gamma=args.simpo_gamma, totals=totals), {}
        case "orpo":
            odds = orpo_loss(means, sums, lengths, rewards, beta=args.beta, totals=totals)
            return odds.total, {"loss/odds_ratio": odds.odds_ratio, "loss/sft": odds.nll}
