"""FLOOR 1: what is to be learned. Reads data in any usual form, checks it, and draws labelled examples by seed."""

from foretune.tasks.opening import read_rows
from foretune.tasks.quality import audit
from foretune.tasks.schema import Schema
from foretune.tasks.splits import Draw, draw
from foretune.tasks.task import Task

__all__ = ["Draw", "Schema", "Task", "audit", "draw", "read_rows"]
