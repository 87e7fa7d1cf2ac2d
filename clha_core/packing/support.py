from clha_core.packing.attention import TREE_ATTENTION
from clha_core.packing.forward import causal_lm


def why_not(model, tokens):
    return None


def use_trees(model):
    causal_lm(model).set_attn_implementation(TREE_ATTENTION)
