"""The losses of all methods: pure functions of log-probs and rewards.

Shapes: every input is (batch, n), n >= 2 candidates a row. `rewards` come from a reward model; rows need not be
sorted, the losses rank the candidates themselves, best first. A row with fewer candidates fills its slots with the
reward ABSENT and any log-prob: such a slot changes no loss and gets a gradient of exactly 0. Every row has at least two
candidates, and rewards are neither NaN nor +inf: both are the caller's to refuse.

Outputs are scalars (0-dimensional tensors). Means are over the batch, or with `totals` over the whole optimiser step:
then the losses of its micro-batches add up to the loss of all of its rows at once.
"""

from clha_core.losses.clha import CLHALoss as CLHALoss
from clha_core.losses.clha import adaptive_sft_loss as adaptive_sft_loss
from clha_core.losses.clha import clha_loss as clha_loss
from clha_core.losses.clha import contrastive_loss as contrastive_loss
from clha_core.losses.pairwise import ORPOLoss as ORPOLoss
from clha_core.losses.pairwise import dpo_loss as dpo_loss
from clha_core.losses.pairwise import ipo_loss as ipo_loss
from clha_core.losses.pairwise import orpo_loss as orpo_loss
from clha_core.losses.pairwise import simpo_loss as simpo_loss
from clha_core.losses.pro import pro_loss as pro_loss
from clha_core.losses.ranking import ABSENT as ABSENT
from clha_core.losses.ranking import Totals as Totals
from clha_core.losses.ranking import batch_totals as batch_totals
from clha_core.losses.ranking import present_pairs as present_pairs
from clha_core.losses.ranking import rank_by_reward as rank_by_reward
from clha_core.losses.ranking import reward_gap_at_quantile as reward_gap_at_quantile
from clha_core.losses.ranking import similar_pairs as similar_pairs
from clha_core.losses.rrhf import rrhf_loss as rrhf_loss
from clha_core.losses.sft import sft_loss as sft_loss
