"""What happened to every example, kept beside a record so that two models can be compared later without a rerun.

Members of `<task>.npz`: `ids`, `example/<name>` (one row per example), `row/<name>` (one per caption, detection or
region), `metric/<name>/<array>` and `group/<grouping>/<group>/<array>` (the arrays of each statistic), and `manifest`
(JSON: kinds of statistics, original dtypes, what was left out to stay small).
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from sparc_bench.errors import UserError
from sparc_bench.metrics.statistic import Statistic

MAX_BYTES = 200_000


@dataclass(frozen=True)
class StoredOutcome:
    """A file of outcomes, read back.

    Attributes:
        ids: of the examples, in the data split's order.
        examples: name -> array with one row per example.
        metrics: name -> statistic.
        groups: grouping -> group -> statistic of the headline.
        dropped: what was left out to stay under the size limit.
    """

    ids: tuple[str, ...]
    examples: Mapping[str, ndarray]
    metrics: Mapping[str, Statistic]
    groups: Mapping[str, Mapping[str, Statistic]]
    dropped: tuple[str, ...]


def pack(
    ids: Sequence[str],
    metrics: Mapping[str, Statistic],
    groups: Mapping[str, Mapping[str, Statistic]],
    examples: Mapping[str, ndarray],
    rows: Mapping[str, ndarray],
    headline: Iterable[str],
    max_bytes: int = MAX_BYTES,
) -> tuple[bytes, tuple[str, ...]]:
    """The compressed file, and what was left out of it to stay under `max_bytes`.

    Left out in this order: rows; the tables by group, last first; example arrays other than `correct`; metrics other
    than the headline, last first. What is left after that is kept whatever its size. Reals are kept as float32.
    """
    headline = set(headline)
    core = _Part({f"example/{name}": array for name, array in examples.items() if name == "correct"})
    parts = {"rows": _Part({f"row/{name}": array for name, array in rows.items()})}
    for grouping, of in reversed(list(groups.items())):
        part = parts[f"groups by {grouping}"] = _Part()
        for group, statistic in of.items():
            part.add("group", [grouping, group], statistic)
    others = {f"example/{name}": array for name, array in examples.items() if name != "correct"}
    parts["example arrays other than correct"] = _Part(others)
    for name, statistic in reversed(list(metrics.items())):
        part = core if name in headline else parts.setdefault(f"metric {name}", _Part())
        part.add("metric", [name], statistic)
    dropped: list[str] = []
    while True:
        # in the protocol's order again
        content = _compressed(ids, [core, *parts.values()][::-1], dropped)
        candidates = [name for name, part in parts.items() if part.arrays]
        if len(content) <= max_bytes or not candidates:
            return content, tuple(dropped)
        dropped.append(candidates[0])
        del parts[candidates[0]]


@dataclass
class _Part:
    """Arrays that are kept or left out together, and what the manifest says of the statistics among them."""

    arrays: dict[str, ndarray] = field(default_factory=dict)
    statistics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, prefix: str, names: list[str], statistic: Statistic) -> None:
        arrays = statistic.arrays()
        self.arrays |= {"/".join([prefix, *names, key]): array for key, array in arrays.items()}
        entry = {"names": names, "kind": statistic.kind, "arrays": list(arrays)}
        self.statistics.setdefault(prefix, []).append(entry)


def _compressed(ids: Sequence[str], parts: Sequence[_Part], dropped: Sequence[str]) -> bytes:
    arrays = {key: np.asarray(array) for part in parts for key, array in part.arrays.items()}
    manifest = {
        "statistics": {
            prefix: [entry for part in parts for entry in part.statistics.get(prefix, [])]
            for prefix in ("group", "metric")
        },
        "dtypes": {key: array.dtype.str for key, array in arrays.items()},
        "dropped": list(dropped),
    }
    members = {key: _compact(array) for key, array in arrays.items()}
    members |= {"ids": np.array(ids, dtype=np.str_), "manifest": np.array(json.dumps(manifest))}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **members)  # type: ignore[arg-type]  # the stub takes the members for its allow_pickle
    return buffer.getvalue()


def _compact(array: ndarray) -> ndarray:
    """The smallest dtype that holds the same integers; reals as float32."""
    if array.dtype.kind not in "fiu" or array.size == 0:
        return array
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.round(array)).all()):
        return array.astype(np.float32) if array.dtype.itemsize > 4 else array
    low, high = array.min(), array.max()
    for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return array


def sha256(content: bytes) -> str:
    """Hash of a file's content."""
    return hashlib.sha256(content).hexdigest()


def read(path: Path) -> StoredOutcome:
    """The outcomes in a file; the protocol's module must be loaded, so that its kinds of statistics are known.

    Raises:
        UserError: missing or damaged.
    """
    again = "run sparc-bench eval on this model and task again, with --force."
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            members = {name: file[name] for name in file.files}
        manifest = json.loads(str(members["manifest"]))
        ids = tuple(str(item) for item in members["ids"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"The outcomes {path} cannot be read ({error}): {again}") from None
    dtypes = manifest["dtypes"]
    arrays = {key: members[key].astype(dtype) for key, dtype in dtypes.items()}
    kinds = {cls.kind: cls for cls in _subclasses(Statistic)}

    def rebuilt(prefix: str) -> list[tuple[list[str], Statistic]]:
        found = []
        for entry in manifest["statistics"][prefix]:
            if entry["kind"] not in kinds:
                raise UserError(f"{path} holds the unknown kind of statistic '{entry['kind']}': {again}")
            stem = "/".join([prefix, *entry["names"]])
            values = {name: arrays[f"{stem}/{name}"] for name in entry["arrays"]}
            found.append((entry["names"], kinds[entry["kind"]](**values)))
        return found

    groups: dict[str, dict[str, Statistic]] = {}
    for (grouping, group), statistic in rebuilt("group"):
        groups.setdefault(grouping, {})[group] = statistic
    return StoredOutcome(
        ids=ids,
        examples={key.removeprefix("example/"): a for key, a in arrays.items() if key.startswith("example/")},
        metrics={names[0]: statistic for names, statistic in rebuilt("metric")},
        groups=groups,
        dropped=tuple(manifest["dropped"]),
    )


def _subclasses(cls: type[Statistic]) -> list[type[Statistic]]:
    direct = cls.__subclasses__()
    return [*direct, *(deeper for subclass in direct for deeper in _subclasses(subclass))]
