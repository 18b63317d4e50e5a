"""Outcomes of every example, kept beside a record: two models can be compared later without a rerun.

Members of `<task>.npz`: `ids` (JSON, compressed by xz; an array of strings in older files), `example/<name>` (one
row per example), `row/<name>` (one per caption, detection or region), `metric/<name>/<array>` and
`group/<grouping>/<group>/<array>` (the arrays of each statistic), `table/<grouping>/<array>` (all groups of a grouping
whose statistics are means, one after the other), and `manifest` (JSON: kinds of statistics, original dtypes, which
arrays are kept as differences, which equal another one, what was left out to stay small).

Shapes: E cells (a group and a cluster that it holds items of), K groups.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from sparc_bench.errors import UserError
from sparc_bench.files import archives
from sparc_bench.files.json_text import json_value
from sparc_bench.metrics.statistic import SparseMean, Statistic

MAX_BYTES = 200_000
_ZIP_BYTES = 22
"""Size of a zip archive without members."""
_TABLE = ("cluster_E", "sum_E", "count_E", "cells_K")


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
    """The compressed file, and the names of the arrays left out to stay under `max_bytes`.

    Left out in this order: rows; the tables by group, last first; example arrays other than `correct`; metrics other
    than the headline, last first. What is left after that is kept whatever its size. Reals are kept as float32.
    """
    headline = set(headline)
    core = _Part({f"example/{name}": array for name, array in examples.items() if name == "correct"})
    parts = {"rows": _Part({f"row/{name}": array for name, array in rows.items()})}
    for grouping, of in reversed(list(groups.items())):
        part = parts[f"groups by {grouping}"] = _Part()
        part.add_groups(grouping, of)
    others = {f"example/{name}": array for name, array in examples.items() if name != "correct"}
    parts["example arrays other than correct"] = _Part(others)
    for name, statistic in reversed(list(metrics.items())):
        part = core if name in headline else parts.setdefault(f"metric {name}", _Part())
        part.add("metric", [name], statistic)
    names = _Member.of("ids", np.frombuffer(lzma.compress(json.dumps(list(ids)).encode()), dtype=np.uint8))
    members = {key: _Member.of(key, array) for part in [core, *parts.values()] for key, array in part.arrays.items()}
    dropped: list[str] = []
    while True:
        # in the protocol's order again
        kept = [names, *_kept([core, *parts.values()][::-1], members, dropped)]
        candidates = [name for name, part in parts.items() if part.arrays]
        if not candidates or sum(member.bytes for member in kept) + _ZIP_BYTES <= max_bytes:
            return _archive({member.key: member.array for member in kept}), tuple(dropped)
        dropped.append(candidates[0])
        del parts[candidates[0]]


@dataclass
class _Part:
    """Arrays that are kept or left out together, and the manifest's entries of their statistics."""

    arrays: dict[str, ndarray] = field(default_factory=dict)
    statistics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, prefix: str, names: list[str], statistic: Statistic) -> None:
        arrays = {key: np.asarray(array) for key, array in statistic.arrays().items()}
        self.arrays |= {"/".join([prefix, *names, key]): array for key, array in arrays.items()}
        entry = {"names": names, "kind": statistic.kind, "arrays": list(arrays)}
        self.statistics.setdefault(prefix, []).append(entry)

    def add_groups(self, grouping: str, of: Mapping[str, Statistic]) -> None:
        """Add a grouping, as one table if all are means: thousands of members would be larger than their content."""
        means = [mean for each in of.values() if (mean := each.as_sparse_mean()) is not None]
        if not of or len(means) < len(of) or len({mean.size for mean in means}) > 1:
            for group, statistic in of.items():
                self.add("group", [grouping, group], statistic)
            return
        columns = [[mean.cluster_O, mean.sum_O, mean.count_O] for mean in means]
        arrays = [
            *(np.concatenate(cells) for cells in zip(*columns, strict=True)),
            np.array([len(c[0]) for c in columns]),
        ]
        self.arrays |= {f"table/{grouping}/{key}": array for key, array in zip(_TABLE, arrays, strict=True)}
        self.tables[grouping] = {"groups": list(of), "clusters": means[0].size}


@dataclass(frozen=True)
class _Member:
    """An array as it lies in the file.

    Attributes:
        key: its name.
        dtype: of the array as it was.
        array: in the smallest dtype, as differences where these take less.
        differences: whether it is.
        bytes: what it takes, compressed, with its name.
        content: equal for equal arrays.
    """

    key: str
    dtype: str
    array: ndarray
    differences: bool
    bytes: int
    content: tuple[object, ...]

    @classmethod
    def of(cls, key: str, array: ndarray) -> _Member:
        plain = _compact(array)
        forms = [plain]
        if plain.ndim == 1 and plain.dtype.kind in "iu" and 1 < plain.dtype.itemsize < 8:
            forms.append(_compact(np.diff(plain.astype(np.int64), prepend=0)))
        sizes = [len(_archive({key: form})) - _ZIP_BYTES for form in forms]
        best = int(np.argmin(sizes))
        stored = np.ascontiguousarray(forms[best]).reshape(forms[best].shape)
        content = (stored.dtype.str, stored.shape, best, sha256(stored.tobytes()))
        return cls(key, array.dtype.str, stored, best == 1, sizes[best], content)


def _kept(parts: Sequence[_Part], members: Mapping[str, _Member], dropped: Sequence[str]) -> list[_Member]:
    """The members of some parts, each content once, and the manifest."""
    found = [members[key] for part in parts for key in part.arrays]
    first: dict[tuple[object, ...], _Member] = {}
    for member in found:
        first.setdefault(member.content, member)
    manifest = {
        "statistics": {
            prefix: [entry for part in parts for entry in part.statistics.get(prefix, [])]
            for prefix in ("group", "metric")
        },
        "tables": {grouping: table for part in parts for grouping, table in part.tables.items()},
        "dtypes": {member.key: member.dtype for member in found},
        "differences": [member.key for member in found if member.differences],
        "same": {member.key: first[member.content].key for member in found if first[member.content] is not member},
        "dropped": list(dropped),
    }
    return [*first.values(), _Member.of("manifest", np.array(json.dumps(manifest)))]


def _archive(members: Mapping[str, ndarray]) -> bytes:
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
    with _opened(path) as (members, manifest):
        ids = _ids(members["ids"])
        arrays = _arrays(members, manifest, manifest["dtypes"])
    groups: dict[str, dict[str, Statistic]] = {
        grouping: _of_table({key: arrays[f"table/{grouping}/{key}"] for key in _TABLE}, **table)
        for grouping, table in manifest.get("tables", {}).items()
    }
    for (grouping, group), statistic in _rebuilt("group", manifest["statistics"]["group"], arrays, path):
        groups.setdefault(grouping, {})[group] = statistic
    metrics = _rebuilt("metric", manifest["statistics"]["metric"], arrays, path)
    return StoredOutcome(
        ids=ids,
        examples={key.removeprefix("example/"): a for key, a in arrays.items() if key.startswith("example/")},
        metrics={names[0]: statistic for names, statistic in metrics},
        groups=groups,
        dropped=tuple(manifest["dropped"]),
    )


def read_metrics(path: Path, names: Collection[str], content: bytes | None = None) -> dict[str, Statistic]:
    """The statistics of some metrics, as far as the file holds them; nothing else of it is unpacked.

    Args:
        path: of the file.
        names: of the metrics.
        content: of the file, where it has been read already.

    Raises:
        UserError: missing or damaged.
    """
    with _opened(path, content) as (members, manifest):
        entries = [entry for entry in manifest["statistics"]["metric"] if entry["names"][0] in names]
        keys = [f"metric/{entry['names'][0]}/{array}" for entry in entries for array in entry["arrays"]]
        arrays = _arrays(members, manifest, keys)
    return {named[0]: statistic for named, statistic in _rebuilt("metric", entries, arrays, path)}


def known_kinds() -> dict[str, type[Statistic]]:
    """Kind -> class of the statistics that can be rebuilt with the modules that are loaded."""
    return {cls.kind: cls for cls in _subclasses(Statistic) if cls.stored}


ROUNDING = 1e-6
"""Share by which arrays kept in float32 may pass an end of the range."""

_AGAIN = "run sparc-bench eval on this model and task again, with --force."


@contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[tuple[Mapping[str, ndarray], dict[str, Any]]]:
    """Members, unpacked one by one as they are asked for, and the manifest."""
    try:
        content = path.read_bytes() if content is None else content
        with archives.arrays(path, content) as members, archives.odd_arrays():
            yield members, json_value(str(members["manifest"]))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"The outcomes {path} cannot be read ({error}): {_AGAIN}") from None


def _rebuilt(
    prefix: str, entries: Iterable[Mapping[str, Any]], arrays: Mapping[str, ndarray], path: Path
) -> list[tuple[list[str], Statistic]]:
    """Names and statistic of each entry of the manifest."""
    kinds, found = known_kinds(), []
    for entry in entries:
        if entry["kind"] not in kinds:
            raise UserError(f"{path} holds the unknown kind of statistic '{entry['kind']}': {_AGAIN}")
        stem = "/".join([prefix, *entry["names"]])
        values = {name: arrays[f"{stem}/{name}"] for name in entry["arrays"]}
        statistic = kinds[entry["kind"]].of_arrays(values)
        if prefix == "metric":
            _refuse_outside(statistic, "/".join(entry["names"]), path)
        found.append((entry["names"], statistic))
    return found


def _refuse_outside(statistic: Statistic, name: str, path: Path) -> None:
    """Raise UserError for a value outside the statistic's range; NaN is a mean of nothing."""
    value = statistic.value
    if value < statistic.least - ROUNDING or value > statistic.most + ROUNDING:
        raise UserError(
            f"{path} gives {value:g} as {name}, outside {statistic.least:g} to {statistic.most:g}: {_AGAIN}"
        )


def _ids(member: ndarray) -> tuple[str, ...]:
    if member.dtype == np.uint8:
        return tuple(map(str, json_value(_unpacked(member.tobytes()))))
    return tuple(str(item) for item in member)


def _unpacked(packed: bytes) -> bytes:
    """The bytes of an LZMA stream; raises ValueError where it is cut, or unpacks beyond the limits of archives."""
    stream = lzma.LZMADecompressor(memlimit=archives.FREE)
    found = stream.decompress(packed, archives.RATIO * len(packed) + archives.FREE)
    if not stream.eof:
        raise ValueError("its ids are cut, or unpack to far more than their size")
    return found


def _arrays(members: Mapping[str, ndarray], manifest: Mapping[str, Any], keys: Iterable[str]) -> dict[str, ndarray]:
    """Arrays of the given keys, as they were packed."""
    same, differences = manifest.get("same", {}), set(manifest.get("differences", ()))
    unpacked: dict[str, ndarray] = {}
    arrays = {}
    for key in keys:
        stored = same.get(key, key)
        if stored not in unpacked:
            unpacked[stored] = members[stored]
        array = unpacked[stored]
        arrays[key] = (np.cumsum(array, dtype=np.int64) if key in differences else array).astype(
            manifest["dtypes"][key]
        )
    return arrays


def _of_table(arrays: Mapping[str, ndarray], groups: Sequence[str], clusters: int) -> dict[str, Statistic]:
    ends = np.cumsum(arrays["cells_K"])[:-1]
    columns = [np.split(arrays[key], ends) for key in ("cluster_E", "sum_E", "count_E")]
    return {
        group: SparseMean(cluster_O, sum_O, count_O, clusters)
        for group, cluster_O, sum_O, count_O in zip(groups, *columns, strict=True)
    }


def _subclasses(cls: type[Statistic]) -> list[type[Statistic]]:
    direct = cls.__subclasses__()
    return [*direct, *(deeper for subclass in direct for deeper in _subclasses(subclass))]
