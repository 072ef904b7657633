"""A child process whose files may not grow beyond a limit: the nearest thing to a full disk that needs no root."""

import os
import subprocess
import sys
import textwrap

import pytest

HEAD = """
import resource, signal
from foretune.errors import StoreError
from foretune.testing.store_contract import toy_record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""


@pytest.fixture
def run_with_file_limit():
    """``run(size, body)`` runs ``body`` with files of at most ``size`` bytes and returns what it printed.

    Inside ``body``, ``limit(n)`` changes the limit.
    """
    if os.name == "nt":
        pytest.skip("RLIMIT_FSIZE is a POSIX limit")

    def run(size: int, body: str) -> str:
        code = f"{HEAD}\nlimit({size})\n{textwrap.dedent(body)}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
