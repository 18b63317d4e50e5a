"""Functions of all data set readers: find folders and files, validate annotations, compute the fingerprint.

Every mistake on disk is a `UserError` of one sentence that ends in the fix.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sparc_bench.errors import UserError, nearest

Absent = Literal["refuse", "skip"]
"""Treatment of annotations of images that are not on disk: stop with an error, or leave them out with a note."""

Missing = Literal["refuse", "skip", "keep"]
"""The same, where "keep" keeps them, for whoever opens no image (stored vectors, files of outputs)."""

AnyRows = TypeVar("AnyRows", bound=BaseModel)
AnyId = TypeVar("AnyId", int | str, str, int)


@dataclass(frozen=True)
class DataFolder:
    """The folder of one data set under the user's data root.

    Attributes:
        path: path of the folder.
        needs: the expected layout in words; error sentences end in it.
    """

    path: Path
    needs: str

    @classmethod
    def find(cls, root: Path | None, folder: str, needs: str) -> DataFolder:
        """The folder `folder` under `root`.

        Raises:
            UserError: no root was given, or the root or the folder does not exist.
        """
        if root is None:
            raise UserError(
                f"'{folder}' is read from disk and no data root was given: pass --data-root FOLDER or set "
                f"SPARC_BENCH_DATA to the folder that holds {needs}."
            )
        if not root.is_dir():
            raise UserError(f"The data root {root} is no folder: mend --data-root or SPARC_BENCH_DATA.")
        path = root / folder
        if not path.is_dir():
            if root.name == Path(folder).name:
                raise UserError(
                    f"The data root {root} holds no folder '{folder}', it seems to be that folder: "
                    f"pass --data-root {root.parent} (or set SPARC_BENCH_DATA to it)."
                )
            raise UserError(
                f"The data root {root} holds no folder '{folder}': put the data set there, mend --data-root or "
                f"SPARC_BENCH_DATA, or set the reader's option 'folder'; it needs {needs}."
            )
        return cls(path, needs)

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises UserError with the expected layout where the file is missing."""
        path = self.path / name
        try:
            return path.read_bytes()
        except (OSError, ValueError) as error:  # no path holds the character NUL
            reason = f"cannot be read ({getattr(error, 'strerror', error)})"
            reason = "does not exist" if isinstance(error, FileNotFoundError) else reason
            raise UserError(f"{path} {reason}: the data set needs {self.needs}.") from None

    def text(self, name: str) -> str:
        """The text of a file (see `decoded`)."""
        return decoded(self.read(name), self.path / name)

    def lines(self, name: str) -> list[str]:
        """The lines of an id list, stripped, without empty ones; raises UserError for a repeated line."""
        found = [line.strip() for line in self.text(name).splitlines() if line.strip()]
        twice = repeated(found)
        if twice:
            raise UserError(f"{self.path / name} lists {some(twice)} more than once: take the repeated lines out.")
        return found

    def folder(self, name: str, missing: Missing = "refuse") -> Path:
        """The path of a folder inside; raises UserError with the expected layout where it is missing and not "keep"."""
        path = self.path / name
        if not path.is_dir() and missing != "keep":
            raise UserError(f"{path} is no folder: the data set needs {self.needs}.")
        return path


def decoded(data: bytes, where: Path | str) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, as Windows writes it.

    Raises:
        UserError: the bytes are not in that encoding.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data[:4]:
        raise UserError(f"{where} is UTF-16 or UTF-32 text without a byte order mark: save it again as UTF-8.")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} is no {encoding.removesuffix('-sig').upper()} text (byte {error.start}): save it again as UTF-8."
        ) from None


_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as that of UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_json(cls: type[AnyRows], data: bytes, where: Path | str) -> AnyRows:
    """JSON validated against a pydantic model; raises UserError that names the first value that does not fit."""
    marked = any(data.startswith(mark) for mark in _MARKS) or b"\0" in data[:4]
    text = decoded(data, where) if marked else data
    try:
        return cls.model_validate_json(text)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        same_row = [one for one in errors if one["loc"][:2] == errors[0]["loc"][:2]]
        first = max(same_row, key=lambda one: len(one["loc"]))  # of several forms of a value, the one that fits best
        place = ".".join(str(part) for part in first["loc"] if "[" not in str(part))
        at = f" at {place}" if place else ""
        reason = f"{_owner(text, first['loc'])}{first['msg'].removeprefix('Value error, ')}"
        raise UserError(f"{where} is not the expected JSON{at} ({reason}): mend or copy it again.") from None


def _owner(text: str | bytes, place: Sequence[int | str]) -> str:
    """`image 3, annotation 7: ` for a place in such a row; empty elsewhere."""
    try:
        value = json.loads(text)
        for part in place:
            value = value[part]
            if isinstance(value, dict) and "image_id" in value:
                return f"image {value['image_id']}" + (f", annotation {value['id']}: " if "id" in value else ": ")
            if isinstance(value, dict) and "file_name" in value and "id" in value:
                return f"image {value['id']}: "
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    return ""


class CocoRow(BaseModel):
    """Base of a row of a COCO-format file; keys that no reader uses are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def file_sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Name -> size in bytes of each file that exists in the folder; missing files are left out."""
    sizes: dict[str, int] = {}
    for name in names:
        try:
            sizes[name] = (folder / name).stat().st_size
        except FileNotFoundError:
            continue
        except ValueError:
            raise UserError(f"{name[:80]!r} in {folder} is no name of a file: mend the annotations.") from None
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read ({error.strerror}): mend its permissions.") from None
    return sizes


def absent_notes(rows: Mapping[str, int], present: Mapping[str, int], folder: Path, absent: Missing) -> tuple[str, ...]:
    """Notes about annotated files that are missing; empty where all are present.

    Args:
        rows: file name -> number of its annotations.
        present: names of the files that exist (see `file_sizes`).
        folder: the folder that they belong in.
        absent: "refuse", "skip" or "keep" them.

    Raises:
        UserError: files are missing and `absent` is "refuse".
    """
    missing = [name for name in rows if name not in present]
    if not missing:
        return ()
    lost = sum(rows[name] for name in missing)
    what = f"{len(missing)} of {len(rows)} files ({lost} annotations) are not in {folder}"
    if absent == "keep":
        return (f"{what}; their annotations are kept, for no image is opened.",)
    if absent == "refuse":
        raise UserError(
            f'{what}, such as {some(missing)}: copy them there, or set the reader\'s option absent = "skip".'
        )
    return (f"{len(missing)} of {len(rows)} files ({lost} annotations) are absent and left out: {some(missing)}.",)


def fingerprint(annotations: Iterable[bytes], contents: Mapping[str, str]) -> str:
    """Sha256 over the bytes of the annotation files and the sorted image ids with the hashes of their contents."""
    return ordered_fingerprint(annotations, ((image_id, contents[image_id]) for image_id in sorted(contents)))


def ordered_fingerprint(annotations: Iterable[bytes], contents: Iterable[tuple[str, str]]) -> str:
    """The same of pairs (image id, hash) that come sorted by the id, none of which is kept."""
    digest = hashlib.sha256()
    for content in annotations:
        digest.update(hashlib.sha256(content).digest())
    for image_id, content_hash in contents:
        digest.update(f"{image_id}\t{content_hash}\n".encode())
    return digest.hexdigest()


def known_split(split: str, splits: Collection[str], dataset: str) -> None:
    """Raise UserError with the nearest split name where the data set has no such split."""
    if split not in splits:
        raise UserError(f"'{dataset}' has no split '{split}': {nearest(split, splits)}")


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names and the number of the others.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def repeated(names: Sequence[AnyId]) -> list[AnyId]:
    """The names that occur more than once, in the order of their second occurrence."""
    seen: set[AnyId] = set()
    twice: dict[AnyId, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)
