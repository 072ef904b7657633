"""Prefixes inside the attention: one prefix (prefix tuning) or a simplex of them (prefix subspaces).

``simplex`` is the mathematics, ``mixture`` says which point of the simplex a pass is computed at, ``attention`` puts
keys and values in front of a network's own, ``model`` is the ``PeftModel`` a user holds. These files import torch, so
``tuners`` imports none of them before it needs one.
"""
