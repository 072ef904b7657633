"""Checkpoint -> ModelCard: what a surrogate may know of a model before its weights are read."""

from __future__ import annotations

from foretune.models.checkpoint import Checkpoint
from foretune.records import ModelCard

_SIZES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "vocabulary": ("vocab_size",),
}
"""Feature -> the names that architectures have for it."""

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def model_card(checkpoint: Checkpoint) -> ModelCard:
    """Size, architecture and, for a mixture of experts, their number; what the configuration does not say is absent."""
    plain = checkpoint.config.to_dict()
    plain = {**plain, **plain.get("text_config", {})}
    found = {name: next((plain[key] for key in keys if plain.get(key)), None) for name, keys in _SIZES.items()}
    features = {name: float(value) for name, value in found.items() if value is not None}
    if checkpoint.positions is not None:
        features["positions"] = float(checkpoint.positions)
    return ModelCard(
        name=checkpoint.ref.name,
        family=str(checkpoint.config.model_type),
        reading=checkpoint.family,
        parameters=checkpoint.parameters,
        experts=next((int(plain[key]) for key in _EXPERTS if plain.get(key)), 0),
        features=features,
    )
