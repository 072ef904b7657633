"""Prompts as tokens: what stands around the answer of each row, cut where it must be, one sequence per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foretune.errors import UsageError
from foretune.models import Checkpoint
from foretune.objectives.verbalizers import Frame, brackets, ids, split_gap
from foretune.tasks.prompts import Pattern

Texts = tuple[str, str | None]
Sides = tuple[list[int], list[int]]
"""Token ids before and after the answer, special tokens included."""


@dataclass(frozen=True)
class Prompter:
    """Writes rows as prompts for one tokenizer.

    Attributes:
        pattern: how a row is written.
        context: what stands before it: demonstrations.
        frames: what is put at the place of the answer.
    """

    pattern: Pattern
    context: str
    frames: tuple[Frame, ...]
    checkpoint: Checkpoint

    def sequences(self, rows: Sequence[Texts]) -> tuple[list[list[int]], int]:
        """One sequence per row and frame, at most ``max_length`` long, and how many rows were longer.

        The texts of a long row lose characters at their end, the longer text first, until it fits. Behind a context the
        prompt loses its beginning: such a row is there to be counted, and is refused before it is judged.

        Raises:
            UsageError: the pattern alone does not fit.
        """
        room = self.checkpoint.ref.max_length - max(len(frame.tokens) for frame in self.frames)
        whole = self._sides(rows)
        long = [i for i, sides in enumerate(whole) if _size(sides) > room]
        for i in long:
            before, after = whole[i]
            whole[i] = (before[_size(whole[i]) - room :], after) if self.context else self._shortened(rows[i], room)
        return self._framed(whole), len(long)

    def without_text(self, texts: Sequence[str]) -> list[list[int]]:
        """The sequences of rows that hold each of ``texts`` and nothing else; of none: the bare question."""
        if texts:
            return self._framed(self._sides([(text, text) for text in texts]))
        return self._framed(self._tokenized([self.pattern.lead], [self.pattern.around("", None)[1]]))

    def _shortened(self, row: Texts, room: int) -> Sides:
        """The sides of the longest beginning of ``row`` that fits, found by bisection over its characters."""

        def sides(keep: int) -> Sides:
            text, pair = row
            return self._sides([(text[:keep], None if pair is None else pair[:keep])])[0]

        low, high, best = 0, max(len(text or "") for text in row), sides(0)
        if _size(best) > room:
            raise UsageError(
                f"The pattern `{self.pattern.template}` must leave room for a text, but it takes {_size(best)} of "
                f"{room} tokens. Use a larger `--max-length` or a shorter pattern."
            )
        while high - low > 1:
            middle = (low + high) // 2
            found = sides(middle)
            low, high, best = (middle, high, found) if _size(found) <= room else (low, middle, best)
        return best

    def _sides(self, rows: Sequence[Texts]) -> list[Sides]:
        around = [self.pattern.around(*row) for row in rows]
        return self._tokenized([self.context + before for before, _ in around], [after for _, after in around])

    def _tokenized(self, befores: Sequence[str], afters: Sequence[str]) -> list[Sides]:
        """What follows the answer is read by a model that fills masks, and by no other."""
        start, end = brackets(self.checkpoint)
        before = ids(self.checkpoint, [split_gap(text)[0] for text in befores])
        if self.checkpoint.family == "encoder":
            after = [sequence + end for sequence in ids(self.checkpoint, afters)]
        else:
            after = [end if self.checkpoint.family == "encoder-decoder" else []] * len(before)
        return [(start + left, right) for left, right in zip(before, after, strict=True)]

    def _framed(self, sides: Sequence[Sides]) -> list[list[int]]:
        """One sequence per frame; an encoder-decoder has the frame in its decoder."""
        inside = self.checkpoint.family != "encoder-decoder"
        return [
            [*before, *(frame.tokens if inside else ()), *after] for before, after in sides for frame in self.frames
        ]


def _size(sides: Sides) -> int:
    return len(sides[0]) + len(sides[1])
