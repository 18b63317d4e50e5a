"""A file or folder of outputs, read once; each kind of outputs is recognised by content, not by file name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from sparc_bench.errors import UserError
from sparc_bench.files import archives
from sparc_bench.files.annotations import decoded
from sparc_bench.files.json_text import json_value

CLASSES_FILE = "classes.txt"
"""File in a folder of masks with the class names, one per line, in the order of the pixel values."""


@dataclass(frozen=True)
class OutputsFile:
    """Content of a file or folder of outputs.

    Attributes:
        path: path of the file or folder.
        sha256: hash of the file's bytes; for a folder, of the names and bytes of its masks and class list, in order.
        folder: masks and class list as paths within the folder; None for a file.
        arrays: arrays of an `.npz` or `.safetensors` file, else None.
        rows: content of a JSON or JSON Lines file, else None.
    """

    path: Path
    sha256: str
    folder: tuple[str, ...] | None = None
    arrays: dict[str, ndarray] | None = None
    rows: Any = None

    @classmethod
    def open(cls, path: Path) -> OutputsFile:
        """Read a file or folder.

        Raises:
            UserError: the path does not exist, or the file has no format of outputs.
        """
        if path.is_dir():
            files = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
            names = tuple(sorted(name for name in files if name == CLASSES_FILE or name.lower().endswith(".png")))
            digest = hashlib.sha256()
            for name in names:
                digest.update(f"{name}\t{hashlib.sha256((path / name).read_bytes()).hexdigest()}\n".encode())
            return cls(path, digest.hexdigest(), folder=names)
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise UserError(f"{path} {reason}: check the path of the outputs.") from None
        digest_of_file = hashlib.sha256(data).hexdigest()
        if data[:2] == b"PK":
            return cls(path, digest_of_file, arrays=_npz(data, path))
        if path.suffix == ".safetensors":
            return cls(path, digest_of_file, arrays=_safetensors(data, path))
        return cls(path, digest_of_file, rows=_json(data, path))


def _npz(data: bytes, path: Path) -> dict[str, ndarray]:
    try:
        with archives.arrays(path, data) as file:
            return dict(file)
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path} holds Python objects, which are never unpickled: save texts and ids as arrays of strings, "
                "np.array(texts, dtype=str)."
            ) from None
        raise UserError(f"{path} cannot be read as .npz ({error}): save it again with numpy.savez.") from None


def _safetensors(data: bytes, path: Path) -> dict[str, ndarray]:
    """Tensors of a safetensors file, and the lists of strings in its metadata, as arrays."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, ndarray] = dict(load(data))
        length = int.from_bytes(data[:8], "little")
        metadata = json_value(data[8 : 8 + length]).get("__metadata__", {})
        lists = {name: json_value(value) for name, value in metadata.items() if value.startswith("[")}
        named = {name: np.array(values, dtype=str) for name, values in lists.items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}): save it again.") from None
    return arrays | named


def _json(data: bytes, path: Path) -> Any:  # noqa: ANN401 - any JSON value
    try:
        text = decoded(data, path)
    except UserError:
        raise UserError(
            f"{path} is no folder, .npz, .safetensors or JSON file: sparc-bench show TASK says what a task takes."
        ) from None
    try:
        return json_value(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not _starts_an_object(lines[0]):
            raise UserError(
                f"{path} is no folder, .npz, .safetensors or JSON file ({error}): sparc-bench show TASK says what a "
                "task takes."
            ) from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json_value(line))
        except ValueError as error:
            raise UserError(f"{path} is no JSON Lines file, see its line {number} ({error}): mend that line.") from None
    return rows


def _starts_an_object(line: str) -> bool:
    try:
        return isinstance(json_value(line), dict)
    except ValueError:
        return False
