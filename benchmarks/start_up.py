"""`foretune --help` against `python -c "import typer"`: whole processes, taking turns, median of the wall times.

python benchmarks/start_up.py --rounds 15
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import typer": [sys.executable, "-c", "import typer"],
    "foretune --help": [sys.executable, "-m", "foretune", "--help"],
    "foretune runs --help": [sys.executable, "-m", "foretune", "runs", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            taken[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values[1:]) for name, values in taken.items()}
    for name, value in median.items():
        print(f"{name:22} {value * 1000:6.0f} ms   {value / median['import typer']:.2f}x `import typer`")


if __name__ == "__main__":
    main()
