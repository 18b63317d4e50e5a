"""safetensors files with a sorted header: equal tensors and metadata give equal bytes.

The library writes the metadata in an order that varies from process to process, and gives its files to their owner
alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparc_bench.files.atomic import draft, written

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Type of a tensor -> its name in the format."""

_ALIGNMENT = 8


def write_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], file: Path) -> None:
    """Write a safetensors file whole or not at all; raises UserError where the file system refuses."""
    # wide types first, as the library has them, so that every tensor is aligned
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].numel() * tensors[name].itemsize
        kind, shape = _NAMES[tensors[name].dtype], list(tensors[name].shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % _ALIGNMENT)
    with written(file), draft(file) as path, path.open("wb") as opened:
        opened.write(len(head).to_bytes(8, "little") + head)
        for name in order:
            values = tensors[name].detach().cpu().contiguous()
            opened.write(values.reshape(-1).view(torch.uint8).numpy().data)
        opened.flush()
        os.fsync(opened.fileno())
