"""A tiny encoder, four dozen labelled rows as a file, and one finished run that the tests share."""

import os
from pathlib import Path

import pytest

import foretune
from foretune.testing import toys


@pytest.fixture(scope="session", autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory):
    """A store of the tests' own."""
    before = os.environ.get("FORETUNE_STORE")
    os.environ["FORETUNE_STORE"] = str(tmp_path_factory.mktemp("store"))
    yield
    if before is None:
        del os.environ["FORETUNE_STORE"]
    else:
        os.environ["FORETUNE_STORE"] = before


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toys.checkpoint(tmp_path_factory.mktemp("models") / "bert", "bert"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.table(tmp_path_factory.mktemp("data") / "kind.csv", toys.rows("classification"))


@pytest.fixture(scope="session")
def task(data: Path) -> foretune.Task:
    return foretune.Task.from_csv(data)


@pytest.fixture(scope="session")
def result(task, bert, tmp_path_factory):
    return foretune.tune(task, model=bert, steps=4, evaluations=2, out=tmp_path_factory.mktemp("runs") / "first")
