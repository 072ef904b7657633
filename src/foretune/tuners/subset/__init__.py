"""Dynamic subset tuning: an optimizer step on all weights, after which all but the farthest go back to the base.

``topk`` finds the k largest scores, ``rules`` are the optimizers, ``silo`` keeps what is away from the base and does
the projection. These files import torch, so ``tuners`` imports none of them before it needs one.
"""
