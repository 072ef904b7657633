"""Reload an export with stock tools and predict: run as a script, in a process that never imports foretune.

``python reload.py FOLDER ROWS OUT`` reads ``ROWS`` (Parquet: text, pair, choices) and writes the answers to ``OUT`` (JSON:
a list of probability lists, numbers or texts). It is also the shortest true account of how an export is used elsewhere.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


def main(folder: str, rows: str, out: str) -> None:
    """Predict every row of ``rows`` one at a time, so that no padding is involved."""
    how = json.loads((Path(folder) / "export.json").read_text(encoding="utf-8"))
    answer = onnx_model(folder) if how["format"] == "onnx" else torch_model(folder, how)
    table = pq.read_table(rows)
    answers = [answer(row, how) for row in table.to_pylist()]
    Path(out).write_text(json.dumps(answers), encoding="utf-8")


def texts(row: dict, how: dict) -> list[tuple]:
    """The texts of one row as tokenizer arguments: one sequence, or one per candidate."""
    if how["kind"] != "choice":
        return [(row["text"],) if row["pair"] is None else (row["text"], row["pair"])]
    question = row["text"] if row["pair"] is None else f"{row['text']} {row['pair']}"
    return [(question, candidate) for candidate in row["choices"]]


def finish(logits: np.ndarray, how: dict) -> object:
    """Logits ``(sequences, C)`` of one row as probabilities or a number."""
    if how["kind"] == "regression":
        return float(logits[0, 0] * how["scale"] + how["center"])
    flat = logits.ravel() / (how["temperature"] or 1.0)
    exp = np.exp(flat - flat.max())
    return (exp / exp.sum()).tolist()


def torch_model(folder: str, how: dict):
    """The stock transformers class, with the stock PEFT adapter where the export is one."""
    import torch
    import transformers

    torch.manual_seed(0)
    name = {
        "none": "AutoModelForSeq2SeqLM" if how["seq2seq"] else "AutoModelForCausalLM",
        "mean": "AutoModelForTokenClassification",
    }.get(how["pooling"], "AutoModelForSequenceClassification")
    base = how["base"] if how["format"] == "peft" else folder
    sizes = {} if how["pooling"] == "none" else {"num_labels": how["outputs"]}
    model = getattr(transformers, name).from_pretrained(base, dtype="float32", **sizes)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    if how["format"] == "peft":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    model.eval()

    def answer(row: dict, how: dict) -> object:
        with torch.inference_mode():
            if how["kind"] == "generation":
                return write(row)
            kept = []
            for pair in texts(row, how):
                inputs = tokenizer(*pair, truncation=True, max_length=how["max_length"], return_tensors="pt")
                logits = model(**inputs).logits.float()
                if how["pooling"] == "mean":
                    logits = logits[:, -inputs["input_ids"].shape[1] :].mean(1)
                kept.append(logits.numpy())
            return finish(np.concatenate(kept), how)

    def write(row: dict) -> str:
        prompt = row["text"] if row["pair"] is None else f"{row['text']}\n{row['pair']}"
        special = how["seq2seq"]
        if how["chat"] and tokenizer.chat_template:
            turns = [{"role": "user", "content": prompt}]
            prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        elif not how["seq2seq"]:
            prompt, special = prompt + how["separator"], True
        ids = tokenizer(prompt, add_special_tokens=special)["input_ids"]
        if tokenizer.eos_token_id is not None:
            ids = ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
            ids = [*ids, tokenizer.eos_token_id] if how["seq2seq"] else ids
        ids = ids[: how["max_length"]] if how["seq2seq"] else ids[-how["max_length"] :]
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        out = model.generate(
            **inputs, max_new_tokens=how["max_new_tokens"], do_sample=False, num_beams=1, pad_token_id=tokenizer.pad_token_id
        )
        new = out[0, 1:] if how["seq2seq"] else out[0, len(ids) :]
        return tokenizer.decode(new, skip_special_tokens=True).strip()

    return answer


def onnx_model(folder: str):
    """onnxruntime and the tokenizer, no torch model."""
    import onnxruntime
    from transformers import AutoTokenizer

    session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted = [node.name for node in session.get_inputs()]

    def answer(row: dict, how: dict) -> object:
        kept = []
        for pair in texts(row, how):
            inputs = tokenizer(*pair, truncation=True, max_length=how["max_length"], return_tensors="np")
            kept.append(session.run(["logits"], {name: inputs[name].astype(np.int64) for name in wanted})[0])
        return finish(np.concatenate(kept), how)

    return answer


if __name__ == "__main__":
    main(*sys.argv[1:])
