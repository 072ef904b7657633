"""``runs(name)``: the folder of a finished run of ``export_cases.CASES``, trained once. Copy it to change it."""

from functools import cache

import pytest
from export_cases import Runs, trained


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    import torch

    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("runs")
    return cache(lambda name: trained(name, home))
