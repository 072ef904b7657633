"""Decide with a language model's words: what a ``decision`` export means, in torch and transformers alone.

The gate runs this file in a process without foretune, and the export's ``README.md`` shows it: one account, which was
checked. It must import nothing but torch.
"""

from typing import Any

import torch


def probabilities(model: Any, tokenizer: Any, how: dict[str, Any], text: str, pair: str | None = None) -> list[float]:
    """The probability of each of ``how["answers"]``; ``how`` is what ``decision.json`` holds."""
    before, after = prompt(tokenizer, how, {"text": text, "pair": pair or ""})
    read: dict[tuple[int, ...], torch.Tensor] = {}
    scores = []
    for answer in how["answers"]:
        tokens = answer["tokens"]
        begun = tuple([how["mask_id"]] * len(tokens) if how["family"] == "encoder" else tokens[:-1])
        if begun not in read:
            read[begun] = log_probabilities(model, how, before, list(begun), after)
        score = sum(float(read[begun][i, token]) for i, token in enumerate(tokens))
        score /= len(tokens) if how["mean_over_tokens"] else 1
        scores.append((score - answer["offset"]) / how["temperature"])
    return torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()


def prompt(tokenizer: Any, how: dict[str, Any], row: dict[str, str]) -> tuple[list[int], list[int]]:
    """Token ids before and after the answer; of a long row the end of its texts is left out, the longer first."""

    def sides(keep: int | None) -> tuple[list[int], list[int]]:
        """With the first ``keep`` characters of each text. Pieces of a side are literal and name of a text in turn."""
        left, right = (
            "".join(row[piece][:keep] if i % 2 else piece for i, piece in enumerate(how[side]))
            for side in ("before", "after")
        )
        plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        left_ids, right_ids = (
            tokenizer(words, **plain)["input_ids"] for words in ((how["context"] + left).rstrip(" "), right)
        )
        return how["start"] + left_ids, right_ids + how["end"]

    whole = sides(None)
    if sum(map(len, whole)) <= how["prompt_tokens"]:
        return whole
    if how["context"]:
        raise ValueError(f"The text is too long to stand behind its examples in {how['max_length']} tokens.")
    low, high = 0, max(map(len, row.values()))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(map(len, sides(middle))) <= how["prompt_tokens"] else (low, middle)
    return sides(low)


def log_probabilities(
    model: Any, how: dict[str, Any], before: list[int], begun: list[int], after: list[int]
) -> torch.Tensor:
    """Of every token at each place of the answer, of which ``begun`` is what the model reads there."""
    decoder = {}
    if how["family"] == "encoder-decoder":
        ids, answer, place = before + after, [how["decoder_start"], *begun], 0
        decoder = {"decoder_input_ids": torch.tensor([answer], device=model.device)}
    else:
        ids = before + begun + after
        answer, place = ids, len(before) - (how["family"] == "decoder")
    inputs = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs), **decoder).logits[0]
    return logits[-len(answer) :][place:].float().log_softmax(-1)  # positions of virtual tokens come first
