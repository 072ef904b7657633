"""The same worker without torch, which starts in no time. ``python -m killed_worker``; not a test."""

from __future__ import annotations

import json
import sys

from renewed_worker import work

if __name__ == "__main__":
    work(json.loads(sys.stdin.readline()), lambda event: print(json.dumps(event), flush=True))
