"""Reload an export with stock tools and predict: run as a script, in a process that never imports foretune.

``python reload.py FOLDER BASE ROWS OUT`` reads ``ROWS`` (Parquet: text, pair, choices) and writes the answers into
``OUT`` (JSON: a list of probability lists, numbers or texts). ``BASE`` is where the base model lies, for adapters.
Several such quadruples are done in turn. It is also the shortest true account of how an export is used elsewhere.
"""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

Answer = Callable[[dict[str, Any]], object]

WRITERS = {
    "encoder": "AutoModelForMaskedLM",
    "decoder": "AutoModelForCausalLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}
"""Family -> the stock class with a language-model head."""


def main(folder: str, base: str, rows: str, out: str) -> None:
    """Predict every row of ``rows`` one at a time, so that no padding is involved."""
    how = json.loads((Path(folder) / "export.json").read_text(encoding="utf-8"))
    answer = onnx_model(folder, how) if how["format"] == "onnx" else torch_model(folder, base, how)
    answers = [answer(row) for row in pq.read_table(rows).to_pylist()]
    if "foretune" in sys.modules:
        raise SystemExit("foretune was imported: this process proves nothing")
    Path(out).write_text(json.dumps(answers), encoding="utf-8")


def texts(row: dict[str, Any], how: dict[str, Any]) -> list[tuple[str, ...]]:
    """The texts of one row as tokenizer arguments: one sequence, or one per candidate."""
    if how["kind"] != "choice":
        return [(row["text"], row["pair"] or "")] if how["pairs"] else [(row["text"],)]
    question = row["text"] if row["pair"] is None else f"{row['text']} {row['pair']}"
    return [(question, candidate) for candidate in row["choices"]]


def finish(logits: np.ndarray, how: dict[str, Any]) -> object:
    """Logits ``(sequences, C)`` of one row as probabilities or a number."""
    logits = logits.astype(np.float64)
    if how["kind"] == "regression":
        return float(logits[0, 0] * how["scale"] + how["center"])
    flat = logits.ravel() / (how["temperature"] or 1.0)
    exp = np.exp(flat - flat.max())
    return (exp / exp.sum()).tolist()


def configuration(base: str, how: dict[str, Any]) -> dict[str, Any]:
    """The base model's configuration as plain data."""
    from transformers import AutoConfig

    return dict(AutoConfig.from_pretrained(base, trust_remote_code=how["trust_remote_code"]).to_dict())


def torch_model(folder: str, base: str, how: dict[str, Any]) -> Answer:
    """The stock transformers class, with the stock PEFT adapter where the export is one."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    decides = how["format"] == "decision"
    decision = json.loads((Path(folder) / "decision.json").read_text(encoding="utf-8")) if decides else {}
    if decides:
        name = WRITERS[decision["family"]]
    elif how["pooling"] == "none":
        name = WRITERS["encoder-decoder" if how["seq2seq"] else "decoder"]
    else:
        name = f"AutoModelFor{'Token' if how['pooling'] == 'mean' else 'Sequence'}Classification"
    adapter = (Path(folder) / "adapter_config.json").exists()
    sizes = {"num_labels": how["outputs"]} if adapter and how["outputs"] else {}
    if sizes and how["pooling"] == "cls" and "classifier_pooling" in configuration(base, how):
        sizes["classifier_pooling"] = "cls"
    model = getattr(transformers, name).from_pretrained(
        base if adapter else folder,
        dtype="float32",
        use_safetensors=True,
        trust_remote_code=how["trust_remote_code"],
        **sizes,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=how["trust_remote_code"])
    model.config.pad_token_id = tokenizer.pad_token_id
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).eval()

    plain = {"split_special_tokens": True} if how["pooling"] == "eos" else {}  # one end token per text, ours
    cut = {"truncation": True, "max_length": how["max_length"], "return_tensors": "pt"}

    if decides:
        probabilities = runpy.run_path(str(Path(__file__).with_name("decide.py")))["probabilities"]
        return lambda row: probabilities(model, tokenizer, decision, row["text"], row["pair"])

    def answer(row: dict[str, Any]) -> object:
        with torch.inference_mode():
            if how["kind"] == "generation":
                return write(row)
            kept = []
            for pair in texts(row, how):
                inputs = tokenizer(*pair, **cut, **plain).to(device)
                logits = model(**inputs).logits.float()
                if how["pooling"] == "mean":
                    logits = logits[:, -inputs["input_ids"].shape[1] :].mean(1)
                kept.append(logits.cpu().numpy())
            return finish(np.concatenate(kept), how)

    def write(row: dict[str, Any]) -> str:
        prompt = row["text"] if row["pair"] is None else f"{row['text']}\n{row['pair']}"
        chat, seq2seq = how["chat"] and tokenizer.chat_template, how["seq2seq"]
        if chat:
            turns = [{"role": "user", "content": prompt}]
            prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        elif not seq2seq:
            prompt += how["separator"]
        ids = tokenizer(prompt, add_special_tokens=seq2seq or not chat)["input_ids"]
        end = tokenizer.eos_token_id
        if end is not None and (
            seq2seq or not chat
        ):  # a causal prompt never ends in the end token, that of T5 always does
            ids = ids[:-1] if ids and ids[-1] == end else ids
            ids = [*ids, end] if seq2seq else ids
        ids = ids[: how["max_length"]] if seq2seq else ids[-(how["max_length"] - how["max_new_tokens"]) :]
        written = model.generate(
            input_ids=torch.tensor([ids], device=device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=device),
            max_new_tokens=how["max_new_tokens"],
            do_sample=False,
            num_beams=1,
            pad_token_id=tokenizer.pad_token_id,
        )
        new = written[0, 1:] if seq2seq else written[0, len(ids) :]
        return str(tokenizer.decode(new, skip_special_tokens=True)).strip()

    return answer


def onnx_model(folder: str, how: dict[str, Any]) -> Answer:
    """onnxruntime and the tokenizer, no torch model."""
    import onnxruntime
    from transformers import AutoTokenizer

    session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=how["trust_remote_code"])
    wanted = [node.name for node in session.get_inputs()]

    def answer(row: dict[str, Any]) -> object:
        kept = []
        for pair in texts(row, how):
            inputs = tokenizer(*pair, truncation=True, max_length=how["max_length"], return_tensors="np")
            kept.append(session.run(["logits"], {name: inputs[name].astype(np.int64) for name in wanted})[0])
        return finish(np.concatenate(kept), how)

    return answer


if __name__ == "__main__":
    for start in range(1, len(sys.argv), 4):
        main(*sys.argv[start : start + 4])
