"""Matching of the image ids in a file of outputs with those of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType

from sparc_bench.dataset import Example
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import repeated, some

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


@dataclass(frozen=True)
class IdMatch:
    """Match between the images of a task and the entries of a file.

    Attributes:
        index_of: image id of the task -> index of its entry; a missing image has no key.
        beyond: ids of entries for other images.
    """

    index_of: dict[str, int]
    beyond: tuple[str, ...]

    @classmethod
    def of(
        cls, wanted: Sequence[str], given: Sequence[str], where: str, files: Mapping[str, str] = MappingProxyType({})
    ) -> IdMatch:
        """Match ids exactly, else without the image file's suffix and without leading zeros of a number.

        Args:
            wanted: image ids of the task.
            given: ids of the entries.
            where: the file, for errors.
            files: image id -> name of the image's file, by which an entry may be known too.

        Raises:
            UserError: the file repeats an id, two of its ids match one image, or no id belongs to the task.
        """
        twice = repeated(list(given))
        if twice:
            raise UserError(f"{where} has {some(twice)} more than once: keep one entry for each image.")
        exact = {item_id: index for index, item_id in enumerate(given)}
        loose: dict[str, list[int]] = {}
        for index, item_id in enumerate(given):
            loose.setdefault(bare_id(item_id), []).append(index)
        index_of: dict[str, int] = {}
        for item_id in wanted:
            names = [item_id, *([files[item_id]] if files.get(item_id) else [])]
            found = ([exact[name]] if name in exact else loose.get(bare_id(name), []) for name in names)
            candidates = next((indices for indices in found if indices), [])
            if len(candidates) > 1:
                both = " and ".join(given[index] for index in candidates[:2])
                raise UserError(f"{where} has {both}, and either could be the image {item_id}: keep one of them.")
            if candidates:
                index_of[item_id] = candidates[0]
        if given and not index_of:
            raise UserError(
                f"None of the {len(given)} ids of {where} is of this task, whose ids are like {wanted[0]}, not like "
                f"{given[0]}: write the task's own ids (a file's suffix and leading zeros do not matter)."
            )
        used = set(index_of.values())
        return cls(index_of, tuple(item_id for index, item_id in enumerate(given) if index not in used))

    def refuse_missing(self, wanted: Sequence[str], where: str) -> None:
        """Raise UserError where images have no entry."""
        missing = [item_id for item_id in wanted if item_id not in self.index_of]
        if missing:
            raise UserError(
                f"{where} lacks {len(missing)} of the task's {len(wanted)} images ({some(missing)}): give every image "
                "its output."
            )

    def notes(self, where: str) -> tuple[str, ...]:
        """Note about entries for other images, if any; the file of a whole benchmark thus serves its samples."""
        if not self.beyond:
            return ()
        return (f"{len(self.beyond)} images of {where} are not of this task and are left out ({some(self.beyond)}).",)


def file_names(examples: Sequence[Example]) -> dict[str, str]:
    """Id of each example -> name of its image's file; empty without one."""
    return {example.id: example.image.file_name for example in examples}


def bare_id(item_id: str) -> str:
    """Image id without the suffix of an image file, or a number without leading zeros.

    >>> bare_id("000000000139.jpg"), bare_id("2007_000033.png"), bare_id("v1.5")
    ('139', '2007_000033', 'v1.5')
    """
    path = PurePath(item_id)
    stem = item_id[: -len(path.suffix)] if path.suffix.lower() in SUFFIXES else item_id
    return str(int(stem)) if stem.isdecimal() and stem.isascii() else stem
