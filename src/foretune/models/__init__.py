"""FLOOR 1: pretrained checkpoints: which bytes, how they are read, and the network for a kind of task."""

from foretune.models.card import model_card
from foretune.models.checkpoint import Checkpoint, open_checkpoint
from foretune.models.embed import FrozenModel
from foretune.models.network import Network, build

__all__ = ["Checkpoint", "FrozenModel", "Network", "build", "model_card", "open_checkpoint"]
