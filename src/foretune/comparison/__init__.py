"""FLOOR 4: every method on the same pedestal. A frozen protocol, the runs it asks for, and what may be claimed."""

from foretune.comparison.harness import compare, read_protocol
from foretune.comparison.methods import Method
from foretune.comparison.protocol import Protocol, TaskSpec

__all__ = ["Method", "Protocol", "TaskSpec", "compare", "read_protocol"]
