"""``foretune doctor``: what this machine can do and what is missing, each line with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from packaging.requirements import Requirement

app = typer.Typer()

MEMORY_WANTED = 2_000_000_000
"""LoRA on BERT-base peaks at 1.7 GB, full tuning of the demo encoder at 1.4 GB."""

DISK_WANTED = 1_000_000_000


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found, and what to do when ``ok`` is False."""

    name: str
    ok: bool
    found: str
    advice: str = ""


@app.command()
def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """Say what this machine can do and what is missing. Looks only at this machine; fetches nothing."""
    from foretune.cli import output

    checks = [*packages(), *device(), *room(), *hub(), demo_model(), *store()]
    if json:
        output.print_json([asdict(check) for check in checks])
        return
    lines = [("ok" if check.ok else "warn", check.name, check.found, check.advice) for check in checks]
    output.print_table(("", "what", "found", "what to do"), lines)
    warned = sum(not check.ok for check in checks)
    output.say(f"{warned} of {len(checks)} lines ask for something." if warned else "Nothing is amiss.")


def packages() -> Iterator[Check]:
    """Python, and every package that foretune's own metadata asks for, the users' extras included."""
    from packaging.requirements import Requirement

    yield Check("python", True, platform.python_version())
    wanted = [Requirement(line) for line in requires("foretune") or ()]
    core = [need for need in wanted if _applies(need, "")]
    yield from (package(need, "") for need in core)
    for extra in ("demo", "onnx"):
        yield from (package(need, extra) for need in wanted if need not in core and _applies(need, extra))


def package(need: Requirement, extra: str) -> Check:
    """Whether what ``need`` names is installed, and new enough."""
    name = f"{need.name} (extra {extra})" if extra else need.name
    remedy = f"pip install 'foretune[{extra}]'" if extra else f"pip install '{need.name}{need.specifier}'"
    try:
        found = version(need.name)
    except PackageNotFoundError:
        return Check(name, False, "absent", remedy)
    fits = need.specifier.contains(found, prereleases=True)
    return Check(name, fits, found, "" if fits else f"{remedy}: {need.specifier} is needed")


def device() -> Iterator[Check]:
    """Where training runs, in which precision, on how many threads."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        yield Check("device", True, torch.cuda.get_device_name())
        yield _enough("device memory", free, MEMORY_WANTED, f"of {total:,} bytes", "close what else uses the device")
        yield Check("bf16", True, _native(torch.cuda.is_bf16_supported(including_emulation=False)))
    else:
        yield Check("device", True, f"cpu ({torch.backends.cpu.get_cpu_capability()})")
        yield Check("bf16", True, _native(cpu_has_bf16()))
    yield Check("threads", True, f"{torch.get_num_threads()} on {os.cpu_count()} cores (OMP_NUM_THREADS sets them)")


def cpu_has_bf16() -> bool | None:
    """Whether the processor multiplies bf16 itself; None where the system does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return None
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def room() -> Iterator[Check]:
    """Free memory, and free disk where run folders are written."""
    import psutil

    yield _enough("free memory", psutil.virtual_memory().available, MEMORY_WANTED, "", "close other programs")
    yield _enough(
        "free disk", shutil.disk_usage(".").free, DISK_WANTED, "here", "free some space, or use --out elsewhere"
    )


def hub() -> Iterator[Check]:
    """Where checkpoints are cached, and whether the Hub may be asked for more."""
    from huggingface_hub import constants

    yield Check("HF_HOME", True, constants.HF_HOME)
    offline = constants.HF_HUB_OFFLINE
    yield Check(
        "Hugging Face Hub", True, "offline (HF_HUB_OFFLINE)" if offline else "asked when you name something there"
    )


def demo_model() -> Check:
    """Whether the packaged encoder is there and is what it says."""
    from foretune.errors import ModelError
    from foretune.models.locate import DEMO, locate
    from foretune.records import ModelRef

    try:
        return Check("demo model", True, str(locate(ModelRef(DEMO))))
    except ModelError as error:
        return Check("demo model", False, "not usable", str(error))


def store() -> Iterator[Check]:
    """Where runs are remembered, how many, and which lines cannot be read."""
    from foretune.errors import StoreError
    from foretune.store import JournalStore, default_folder

    opened = JournalStore(default_folder())
    try:
        count, damage = len(opened), opened.damage()
    except StoreError as error:
        yield Check("store", False, str(opened.folder), str(error))
        return
    yield Check("store", _writable(opened.folder), f"{count:,} records in {opened.folder}", _advice(opened.folder))
    for line in damage:
        advice = "nothing is to be done: the line is skipped, all others are read"
        yield Check("store line", False, str(line), advice)


def _applies(need: Requirement, extra: str) -> bool:
    return need.marker is None or need.marker.evaluate({"extra": extra})


def _native(bf16: bool | None) -> str:
    return "unknown" if bf16 is None else "native" if bf16 else "emulated, which is slow: keep to fp32"


def _advice(folder: Path) -> str:
    return "" if _writable(folder) else "it cannot be written: name another folder with FORETUNE_STORE"


def _writable(folder: Path) -> bool:
    """Whether ``folder`` can be written, or made where it does not exist yet."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK)


def _enough(name: str, free: int, wanted: int, where: str, advice: str) -> Check:
    from foretune.report.units import size

    found = " ".join(part for part in (size(free), where) if part)
    return Check(name, free >= wanted, found, "" if free >= wanted else f"{advice}: {size(wanted)} is little enough")
