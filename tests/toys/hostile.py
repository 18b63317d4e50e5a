"""Contents of files as an attacker or a bad disk would have them, for the readers to be tried on."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Collection
from datetime import timedelta
from types import ModuleType

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pydantic import BaseModel

LARGEST = 1 << 20
"""Bytes of a drawn file, at most."""


def few(examples: int) -> settings:
    """Settings of a property test: the same examples on every machine, each in bounded time."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=timedelta(seconds=5),
        suppress_health_check=list(HealthCheck),
    )


NUMBERS = st.sampled_from([0, 1, 2, -1, 3.5, 1e308, -1e308, float("nan"), float("inf"), 2**63, 10**40, True])
ODD_WORDS = [
    *("", "a", "b", "1", "0", "-1", "1.jpg", "a.jpg", "000000000139.jpg", "COCO_val2014_000000000139.jpg", "../x"),
    *("a\0b", "/x", "x" * 300, "\ud800", "\x1b[2J", "\u202e", "²", "9" * 5000, "test", "train", "val", "yes", "no"),
]
WORDS = st.one_of(st.sampled_from(ODD_WORDS), st.text(max_size=8))
SCALARS = st.one_of(st.none(), NUMBERS, WORDS)
DEEP = [b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000 + b"1" + b"}" * 3000]


def values(keys: Collection[str]) -> st.SearchStrategy:
    """JSON values whose tables have these keys, mostly: what a reader knows, in places where it does not belong."""
    known = st.sampled_from(sorted(keys) or ["a"])
    names = st.one_of(known, known, known, WORDS)
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=6)),
        max_leaves=12,
    )


def json_text(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def json_files(keys: Collection[str]) -> st.SearchStrategy[bytes]:
    """JSON, JSON lines, and what is neither."""
    value = values(keys)
    whole = value.map(json_text)
    lines = st.lists(value, max_size=4).map(lambda rows: b"\n".join(map(json_text, rows)))
    return st.one_of(whole, whole, lines, cut(whole), plain())


def plain() -> st.SearchStrategy[bytes]:
    """Bytes, words and numbers of no format."""
    return st.one_of(
        st.binary(max_size=64),
        WORDS.map(lambda word: word.encode("utf-8", "surrogatepass")),
        st.sampled_from([*DEEP, b"9" * 5000, b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"\0" * 600]),
    )


def lists() -> st.SearchStrategy[bytes]:
    """Lists of a few names or numbers, a line each, such as class names, ids of a split and counts."""
    names = st.sampled_from(["1", "1", "2", "a", "b", "a.jpg", "9" * 5000, "a\0b", "../x", "\u00b2", "-1", "\x1b[2J"])
    return st.lists(names, min_size=1, max_size=3).map(lambda lines: "\n".join(lines).encode())


def csv_files(columns: Collection[str]) -> st.SearchStrategy[bytes]:
    """Tables with these columns, and with quotes and fields where they do not belong."""
    header = ",".join(columns)
    row = st.lists(WORDS, max_size=len(columns) + 1).map(",".join)
    table = st.lists(row, max_size=4).map(lambda rows: "\n".join([header, *rows]).encode("utf-8", "surrogatepass"))
    return st.one_of(table, table, cut(table), plain(), st.just(b'a,"b\n\0,c'))


def toml_values(keys: Collection[str]) -> st.SearchStrategy:
    """What a TOML file with these keys holds."""
    return st.dictionaries(st.sampled_from(sorted(keys)), values(keys), max_size=8)


def cut(files: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Files that break off, or of which some bytes are others."""

    def damaged(content: bytes, place: float, patch: bytes) -> bytes:
        at = int(place * len(content))
        return content[:at] + patch + content[at + len(patch) :] if patch else content[:at]

    return st.builds(damaged, files, st.floats(0, 1), st.binary(max_size=4))


ARRAYS = [
    np.zeros((2, 3), np.float32),
    np.full((2, 3), np.nan),
    np.zeros(0),
    np.array(["a", "b"]),
    np.array([b"a"]),
    np.array(3),
    np.array([["a"]]),
    np.arange(4, dtype=np.uint64),
    np.zeros((1, 1, 1, 1), np.complex64),
    np.array(["2020-01-01"], dtype="datetime64[D]"),
    np.zeros(2, dtype=[("a", "i4")]),
    np.array(json.dumps({"a": 1})),
]


def npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def npy_files() -> st.SearchStrategy[bytes]:
    whole = st.sampled_from(ARRAYS).map(npy_bytes)
    headers = st.sampled_from(
        ["{", "[]", "{'descr': [[]], 'fortran_order': 0, 'shape': ()}", "'" * 99, "1/0", "(" * 999]
    )
    odd = headers.map(lambda text: b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
    return st.one_of(whole, cut(whole), odd, plain())


def zip_bytes(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npz_files(keys: Collection[str]) -> st.SearchStrategy[bytes]:
    names = st.one_of(st.sampled_from(sorted(keys)), st.sampled_from(["a", "../a", "/a"]))
    whole = st.dictionaries(names.map(lambda name: f"{name}.npy"), npy_files(), max_size=4).map(zip_bytes)
    return st.one_of(whole, whole, cut(whole), plain().map(lambda rest: b"PK\x03\x04" + rest))


def tar_bytes(members: list[tuple[str, bytes, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name.encode("utf-8", "replace").decode())
            member.type, member.linkname = kind, "a.jpg" if kind != tarfile.REGTYPE else ""
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def tar_files() -> st.SearchStrategy[bytes]:
    names = st.sampled_from(["a.jpg", "a.cls", "b.png", "b.cls", "a.jpg.cls", "../c.cls", "\x1b.cls", "a\0.cls"])
    kinds = st.sampled_from([tarfile.REGTYPE] * 4 + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
    whole = st.lists(st.tuples(names, kinds, st.one_of(lists(), plain())), max_size=5).map(tar_bytes)
    return st.one_of(whole, whole, cut(whole), plain())


def safetensors_files(metadata_keys: Collection[str]) -> st.SearchStrategy[bytes]:
    """Headers with odd shapes, offsets, types and metadata."""
    numbers = st.sampled_from([0, 1, 4, 8, -1, 2**40, 2**63])
    tensor = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(DTYPES),
            "shape": st.lists(numbers, max_size=2),
            "data_offsets": st.lists(numbers, min_size=2, max_size=2),
        }
    )
    metadata = st.dictionaries(st.sampled_from(sorted(metadata_keys)), WORDS, max_size=5)
    keys = st.sampled_from(["scores", "image_embeddings", "w", "model.w"])
    header = st.fixed_dictionaries({}, optional={"__metadata__": metadata}).flatmap(
        lambda fixed: st.dictionaries(keys, tensor, max_size=3).map(lambda tensors: {**fixed, **tensors})
    )
    whole = header.map(json_text).map(lambda text: struct.pack("<Q", len(text)) + text + b"\0" * 8)
    return st.one_of(whole, cut(whole), plain(), st.builds(of_dtype, keys, st.sampled_from(DTYPES)))


def of_dtype(name: str, dtype: str) -> bytes:
    """A whole safetensors file with eight values, of four bits or more each."""
    digits = "".join(sign if sign.isdigit() else " " for sign in dtype).split()
    size = int(digits[0]) if digits else 8
    tensor = {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}
    text = json_text({name: tensor})
    return struct.pack("<Q", len(text)) + text + b"\0" * size


DTYPES = [
    *("BOOL", "U8", "I8", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64", "U64", "C64", "X"),
    *("F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
]


def pickle_files() -> st.SearchStrategy[bytes]:
    """Archives of torch.save whose pickle is a program of a few operations, some of them over and over."""
    program = st.lists(st.sampled_from(OPERATIONS), max_size=12).map(b"".join)
    ends = st.sampled_from([b".", b"s.", b"K\1s.", b"Rs.", b""])
    starts = st.sampled_from([b"}", b"}X\1\0\0\0a", b"})q\0", b""])
    whole = st.builds(lambda start, middle, end: b"\x80\x02" + start + middle + end, starts, program, ends)
    return whole.map(lambda text: zip_bytes({"x/data.pkl": text, "x/version": b"3\n"}, zipfile.ZIP_STORED))


OPERATIONS = [
    *(b"}", b")", b"]", b"(", b"t", b"\x85", b"\x86", b"\x87", b"K\1", b"N", b"\x88", b"X\1\0\0\0a", b"0", b"2"),
    *(b"q\0", b"q\1", b"h\0", b"h\1", b"s", b"u", b"a", b"e", b"R", b"\x81", b"b", b"Q", b"\x8f", b"."),
    *(b"h\0\x86q\0" * 60, b")q\0" + b"h\0\x86q\0" * 60, b"\x85" * 100_000, b"(" * 1000, b"h\0" * 1000),
    *(b"\x8a\x05" + (3 * 10**9).to_bytes(5, "little") + b"\x85", b"c__builtin__\nbytearray\n", b"cos\nsystem\n"),
    *(b"ccollections\nOrderedDict\n", b"ctorch\nFloatTensor\n", b"ctorch\nSize\n", b"cbuiltins\nset\n"),
    b"cbuiltins\nbytearray\n\x8a\x05" + (3 * 10**9).to_bytes(5, "little") + b"\x85R",
]


def keys_of(*modules: ModuleType) -> set[str]:
    """The keys of all tables that modules know: of pydantic models, and words in quotes that could be keys."""
    found: set[str] = set()
    for module in modules:
        for thing in vars(module).values():
            if isinstance(thing, type) and issubclass(thing, BaseModel):
                found |= {field.alias or name for name, field in thing.model_fields.items()}
        with open(str(module.__file__), encoding="utf-8") as source:  # noqa: PTH123 - a module's path is a text
            found |= {part for part in source.read().split('"')[1::2] if part.isidentifier()}
    return found
