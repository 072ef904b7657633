"""Checkpoints that are absent, unsafe, of the wrong kind or too large: one line, no run folder, no weights loaded."""

import json
import shutil
import struct

import pytest

from foretune.testing import toys


@pytest.fixture
def model(bert, tmp_path):
    """A copy of the tiny encoder to be spoilt."""
    return shutil.copytree(bert, tmp_path / "model")


@pytest.fixture(autouse=True)
def data(table):
    return table(toys.rows("classification"))


def test_a_missing_folder_and_an_unreachable_name_say_what_else_to_give(refuses):
    refuses(4, "tune", "data.csv", "--model", "./nowhere", says=["`./nowhere` does not exist", "owner/name"])
    refuses(4, "tune", "data.csv", "--model", "no/such-model", says=["`no/such-model`", "local folder", "demo"])


def test_a_folder_or_file_that_is_no_model_is_named(refuses, tmp_path):
    (tmp_path / "empty").mkdir()
    refuses(4, "tune", "data.csv", "--model", "empty", says=["config.json", "`empty` has none"])
    refuses(4, "tune", "data.csv", "--model", "data.csv", says=["`data.csv` is a file"])


def test_pickled_weights_are_refused_unread(refuses, model):
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04never read")
    refuses(
        4, "tune", "data.csv", "--model", "model", says=["safetensors only", "pytorch_model.bin", "save_pretrained"]
    )


def test_weights_cut_short_are_named(refuses, model):
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refuses(4, "tune", "data.csv", "--model", "model", says=["model.safetensors", "download it again"])


def test_an_encoder_does_not_write(refuses, table, bert, tmp_path):
    table(toys.rows("generation"))
    refuses(4, "tune", "data.csv", "--model", bert, "--out", "run", says=["needs a decoder", "bert", "--model"])
    assert not (tmp_path / "run").exists()


def test_a_model_beyond_the_memory_is_refused_by_its_header(refuses, model, tmp_path):
    """4 TiB of weights that no machine holds, in a sparse file that takes no room on the disk."""
    count = 1 << 40
    header = json.dumps({"huge": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    header += b" " * (-len(header) % 8)
    try:
        with (model / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + 4 * count)
    except OSError:
        pytest.skip("this file system has no sparse files of this size")
    refuses(5, "tune", "data.csv", "--model", "model", "--out", "run", says=["4096.0 GiB", "free", "smaller model"])
    assert not (tmp_path / "run").exists()
