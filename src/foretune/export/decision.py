"""``decision.json``: the prompt and the words by which a language model decides, as plain numbers and texts.

All that foretune works out from tokenizer and model is written down (tokens of the words, special tokens around the
prompt, priors), so that the reader (``decide.py``) has nothing to repeat but the sum of some log-probabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretune.objectives.pattern import PatternObjective
from foretune.objectives.verbalizers import brackets
from foretune.tasks.prompts import Pattern, find_pattern, words_for

if TYPE_CHECKING:
    import torch

    from foretune.export.source import Source

DECISION = "decision.json"


def describe(source: Source, reader: PatternObjective, offsets: torch.Tensor) -> dict[str, Any]:
    """The contents of ``decision.json``.

    Args:
        reader: how the run reads a row.
        offsets: ``(C,)``, see ``PatternObjective.offsets``.
    """
    checkpoint, family = source.checkpoint, reader.family
    pattern = Pattern(reader.template)
    before, after = pattern.sides
    start, end = brackets(checkpoint)
    masked = family == "encoder"
    words = words_for(find_pattern(reader.pattern, pattern.paired), reader.labels, reader.words)
    told = zip(reader.labels, words, reader.answers, offsets.tolist(), strict=True)
    return {
        "family": family,
        "pattern": reader.template,
        "context": reader.context,
        "before": before,
        "after": after if masked else [""],
        "start": start,
        "end": [] if family == "decoder" else end,
        "mask_id": reader.mask_id if masked else None,
        "decoder_start": checkpoint.config.decoder_start_token_id if family == "encoder-decoder" else None,
        "max_length": checkpoint.ref.max_length,
        "prompt_tokens": checkpoint.ref.max_length - max(len(answer) - (not masked) for answer in reader.answers),
        "answers": [
            {
                "label": label,
                "word": word,
                "tokens": list(tokens),
                "pieces": checkpoint.tokenizer.convert_ids_to_tokens(list(tokens)),
                "offset": offset,
            }
            for label, word, tokens, offset in told
        ],
        "tokens": reader.tokens,
        "mean_over_tokens": reader.normalise == "length",
        "offset_is": _offset_is(reader),
        "temperature": source.recipe["temperature"] or 1.0,
    }


def _offset_is(reader: PatternObjective) -> str | None:
    """What the offsets of the answers are, in words; None where all are 0."""
    if reader.calibrate:
        return "log-probability of the answer to texts that say nothing: contextual calibration"
    return "score of the word after the bare question: its prior" if reader.normalise == "prior" else None
