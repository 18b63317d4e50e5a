"""Tensor files: read back by the library as they were, the same bytes each time, for whoever the umask allows."""

import json
import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from sparc_bench.errors import UserError
from sparc_bench.files.tensor_file import write_tensors
from sparc_bench.two_towers import checkpoint

TENSORS = {
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    **{
        str(kind): torch.tensor([0, 1, 1]).to(kind)
        for kind in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    },
    **{str(kind): torch.tensor([0, 1, 1]).to(kind) for kind in (torch.int8, torch.uint8, torch.bool)},
}
METADATA = {key: f'value "{key}" — é\n\t\x01' for key in "zyxabcdefgh"}


def test_the_library_reads_what_was_written(tmp_path):
    file = tmp_path / "x.safetensors"
    write_tensors(TENSORS, METADATA, file)
    found = load_file(file)
    assert found.keys() == TENSORS.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in TENSORS.items()
    )
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == METADATA


def test_it_differs_from_the_library_in_the_order_of_the_metadata_alone(tmp_path):
    tensors = {name: tensor.contiguous() for name, tensor in TENSORS.items() if tensor.dtype == torch.float32}
    write_tensors(tensors, {"one": "key"}, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == save(tensors, {"one": "key"})


@pytest.mark.slow
def test_every_process_writes_the_same_bytes(tmp_path):
    script = (
        "import sys, torch; from pathlib import Path; from sparc_bench.files.tensor_file import write_tensors; "
        "write_tensors({'a': torch.ones(3)}, {c: c for c in 'hgfedcba'}, Path(sys.argv[1]))"
    )
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for number, file in enumerate(files):
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        subprocess.run([sys.executable, "-c", script, str(file)], check=True, env=environment)
    assert len({file.read_bytes() for file in files}) == 1
    size = int.from_bytes(files[0].read_bytes()[:8], "little")
    assert list(json.loads(files[0].read_bytes()[8 : 8 + size])["__metadata__"]) == list("abcdefgh")


def test_the_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o022)
    try:
        write_tensors({"a": torch.ones(1)}, {}, tmp_path / "x.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o644


def test_a_file_that_may_not_be_read_is_not_called_missing(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    write_tensors({"a": torch.ones(1)}, {}, file)

    def refuses(*_, **__):
        raise FileNotFoundError("No such file or directory")  # what safetensors says

    monkeypatch.setattr(checkpoint, "safe_open", refuses)
    with pytest.raises(UserError, match="may not be read by this user"):
        checkpoint.read_meta(file)
    file.unlink()
    with pytest.raises(UserError, match="does not exist: train first"):
        checkpoint.read_meta(file)
