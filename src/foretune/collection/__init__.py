"""FLOOR 4: many runs of many configurations on many tasks, so that later ones can be foretold."""

from foretune.collection.local import Event, collect
from foretune.collection.plan import CollectedTask, CollectionPlan

__all__ = ["CollectedTask", "CollectionPlan", "Event", "collect"]
