"""Seeds, versions, device: what a rerun needs to know."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("foretune", "torch", "transformers", "peft", "accelerate", "datasets", "scikit-learn", "numpy")


def surroundings(device: str, processes: int) -> dict[str, str]:
    """Versions and machine kind as text; no host or user names, for records are shared."""
    import torch

    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    found["device"] = torch.cuda.get_device_name() if device.startswith("cuda") else device
    found["threads"] = str(torch.get_num_threads())
    found["cores"] = str(os.cpu_count())
    found["processes"] = str(processes)
    return found


def is_main() -> bool:
    """Whether this process is the one that writes files: known from the launcher even before accelerate is set up."""
    return os.environ.get("RANK", "0") == "0"


def stream(name: str, *numbers: int) -> int:
    """A 63-bit seed for one named use of a seed, so that no two draws share a stream.

    >>> stream("init", 0) != stream("order", 0) and stream("init", 0) == stream("init", 0)
    True
    """
    text = ":".join([name, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
