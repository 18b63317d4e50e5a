"""Reading of named arrays from `.npy` (memory-mapped), `.npz` and `.safetensors`, and of the names of their rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy import ndarray
from safetensors import SafetensorError, safe_open

from sparc_bench.errors import UserError, shortened
from sparc_bench.files import archives
from sparc_bench.files.annotations import decoded
from sparc_bench.files.json_text import json_value
from sparc_bench.weights.weights_file import read_tensor, refuse_escaping_members

VECTORS = ("image_embeddings", "text_embeddings", "image_patches", "image_areas", "patch_grid")
NAMES = {"image_ids": "image_id", "texts": "caption"}
"""List of row names -> its column in metadata.csv."""

_SUFFIXES = (".npy", ".npz", ".safetensors")


@dataclass(frozen=True)
class StoredArray:
    """An array with the file that it was read from."""

    values: ndarray
    file: Path


def array_files(path: Path) -> list[Path]:
    """Files of a folder that hold embeddings or row names, sorted; a single file stands alone."""
    if path.is_file() and path.suffix in _SUFFIXES:
        return [path]
    if path.is_file():
        raise UserError(f"{path} is no {', '.join(_SUFFIXES[1:])} file: name one, or the folder of the embeddings.")
    if not path.is_dir():
        raise UserError(f"There are no embeddings at {path}: check the path.")
    arrays = {*VECTORS, *NAMES}
    chosen = [each for each in path.iterdir() if each.suffix in _SUFFIXES[1:] or each.stem in arrays]
    chosen = [each for each in chosen if each.suffix in _SUFFIXES]
    chosen += [each for each in (path / "inputs.json", path / "metadata.csv") if each.is_file()]
    return sorted(chosen)


def read_arrays(path: Path, files: Sequence[Path]) -> tuple[dict[str, StoredArray], dict[str, list[str]]]:
    """Known arrays, and lists of row names; raises UserError where two files hold the same array."""
    found: dict[str, StoredArray] = {}
    names: dict[str, list[str]] = {}
    for file in files:
        for key, value in _READERS[file.suffix](file):
            if isinstance(value, list):
                if names.setdefault(key, value) != value:
                    raise UserError(f"{path} holds two different lists of {key}: keep one of them.")
            elif key in found:
                raise UserError(f"{path} holds {key} in {found[key].file.name} and {file.name}: keep one of them.")
            else:
                found[key] = StoredArray(value, file)
    return found, names


_Content = Iterator[tuple[str, "ndarray | list[str]"]]


def _npy(file: Path) -> _Content:
    if file.stem in (*VECTORS, *NAMES):
        with _checked(file):
            array = archives.npy(file)
        yield file.stem, _named(file, file.stem, array)


def _npz(file: Path) -> _Content:
    refuse_escaping_members(file)
    with _checked(file), archives.arrays(file) as archive:
        for key in archive:
            if key in (*VECTORS, *NAMES):
                yield key, _named(file, key, archive[key])


def _safetensors(file: Path) -> _Content:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            for key in opened.keys():  # noqa: SIM118 - no mapping
                if key in VECTORS:
                    tensor = read_tensor(file, opened, key)
                    yield key, (tensor.float() if tensor.itemsize < 4 else tensor).numpy()
    except SafetensorError as error:
        raise _damaged(file, error) from None
    for key in NAMES:
        if key in metadata:
            yield key, _strings(file, key, _json(file, metadata[key]))


def _inputs(file: Path) -> _Content:
    content = _json(file, file.read_bytes())
    if not isinstance(content, dict):
        raise UserError(f"{file} is no table of image_ids and texts: write it with sparc-bench show TASK --out {file}.")
    for key in NAMES:
        if key in content:
            yield key, _strings(file, key, content[key])


def _metadata(file: Path) -> _Content:
    try:
        rows = csv.reader(io.StringIO(decoded(file.read_bytes(), file), newline=""), strict=True)
        header, *table = [row for row in rows if row]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise UserError(f"{file} is no CSV file in UTF-8 ({error}): save it again.") from None
    short = next((number for number, row in enumerate(table, 2) if len(row) != len(header)), None)
    if short is not None:
        raise UserError(f"{file} has another number of fields than its header in row {short}: mend that row.")
    for key, column in NAMES.items():
        if column in header:
            yield key, [row[header.index(column)] for row in table]


_READERS = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".json": _inputs, ".csv": _metadata}


@contextmanager
def _checked(file: Path) -> Iterator[None]:
    """A context in which arrays are read; raises UserError for damaged files."""
    try:
        yield
    except ValueError as error:
        if "Python objects" in str(error) or "Object arrays" in str(error) or _starts_as_pickle(file):
            raise UserError(
                f"{file} holds Python objects, which only unpickling reads and which can run code: save numbers as "
                "float32 and names with numpy.array(names, dtype=str)."
            ) from None
        raise _damaged(file, error) from None


def _named(file: Path, key: str, array: ndarray) -> ndarray | list[str]:
    """The array, or a list of strings for row names."""
    return _strings(file, key, array.tolist()) if key in NAMES else array


def _starts_as_pickle(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(1) == b"\x80"


def _json(file: Path, text: str | bytes) -> Any:  # noqa: ANN401 - anything JSON can hold
    try:
        return json_value(text)
    except ValueError as error:
        raise UserError(f"{file} holds no valid JSON where its names should be ({error}): write it again.") from None


def _strings(file: Path, key: str, values: Any) -> list[str]:  # noqa: ANN401 - anything JSON can hold
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UserError(f"{file} has {key} that are no list of strings: save them as one.")
    return values


def _damaged(file: Path, error: Exception) -> UserError:
    reason = "no array in it" if "pickled data" in str(error) else shortened(str(error).partition("\n")[0])
    return UserError(f"{file} is truncated or damaged ({reason}): copy or save it again.")
