"""Functions of all data set readers: find folders and files, validate annotations, compute the fingerprint.

Every mistake on disk is a `UserError` of one sentence that ends in the fix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sparc_bench.errors import UserError, nearest

Absent = Literal["refuse", "skip"]
"""Treatment of annotations of images that are not on disk: stop with an error, or leave them out with a note."""

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
        except OSError as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise UserError(f"{path} {reason}: the data set needs {self.needs}.") from None

    def text(self, name: str) -> str:
        """The text of a UTF-8 file (a byte order mark is dropped)."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.path / name} is no UTF-8 text (byte {error.start}): save it again in that encoding."
            ) from None

    def lines(self, name: str) -> list[str]:
        """The lines of an id list, stripped, without empty ones; raises UserError for a repeated line."""
        found = [line.strip() for line in self.text(name).splitlines() if line.strip()]
        twice = repeated(found)
        if twice:
            raise UserError(f"{self.path / name} lists {some(twice)} more than once: take the repeated lines out.")
        return found

    def folder(self, name: str) -> Path:
        """The path of a folder inside; raises UserError with the expected layout where the folder is missing."""
        path = self.path / name
        if not path.is_dir():
            raise UserError(f"{path} is no folder: the data set needs {self.needs}.")
        return path


def read_json(cls: type[AnyRows], data: bytes, where: Path) -> AnyRows:
    """JSON validated against a pydantic model; raises UserError that names the first value that does not fit."""
    try:
        return cls.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        at = f" at {place}" if place else ""
        raise UserError(f"{where} is not the expected JSON{at} ({first['msg']}): mend or copy it again.") from None


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
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read ({error.strerror}): mend its permissions.") from None
    return sizes


def absent_notes(rows: Mapping[str, int], present: Mapping[str, int], folder: Path, absent: Absent) -> tuple[str, ...]:
    """Notes about annotated files that are missing; empty where all are present.

    Args:
        rows: file name -> number of its annotations.
        present: names of the files that exist (see `file_sizes`).
        folder: the folder that they belong in.
        absent: "refuse" or "skip".

    Raises:
        UserError: files are missing and `absent` is "refuse".
    """
    missing = [name for name in rows if name not in present]
    if not missing:
        return ()
    lost = sum(rows[name] for name in missing)
    what = f"{len(missing)} of {len(rows)} files ({lost} annotations) are not in {folder}"
    if absent == "refuse":
        raise UserError(
            f'{what}, such as {some(missing)}: copy them there, or set the reader\'s option absent = "skip".'
        )
    return (f"{len(missing)} of {len(rows)} files ({lost} annotations) are absent and left out: {some(missing)}.",)


def fingerprint(annotations: Iterable[bytes], sizes: Mapping[str, int]) -> str:
    """Sha256 over the bytes of the annotation files and the sorted image ids with their file sizes in bytes."""
    digest = hashlib.sha256()
    for content in annotations:
        digest.update(hashlib.sha256(content).digest())
    for image_id in sorted(sizes):
        digest.update(f"{image_id}\t{sizes[image_id]}\n".encode())
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
