"""Checks of names and paths, which take no time, before anything is imported that computes, or a model is loaded."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc_bench.errors import UserError, nearest

if TYPE_CHECKING:  # cards need pydantic, which help does without
    from sparc_bench.cards.recipe import Recipe
    from sparc_bench.cards.task_card import TaskCard

MOST_FILES = 10_000
"""Files of a data set's folder that is read before a model is loaded, at most; a larger one is read after it."""

MOST_BYTES = 2**24
"""Bytes of such a folder that are no photos, at most: JSON of this size is read in about .2 s."""


def refuse_absent_root(data_root: Path | None) -> None:
    """Raise UserError where the folder of the data sets does not exist."""
    if data_root is not None and not data_root.is_dir():
        raise UserError(f"The data root {data_root} does not exist: mend --data-root or SPARC_BENCH_DATA.")


def refuse_absent_device(device: str) -> None:
    """Raise UserError where a device cannot be used on this machine."""
    if device == "cpu":
        return
    refusal = UserError(f"The device '{device}' cannot be used here: leave --device out for the CPU.")
    if is_plainly_absent(device):  # torch takes seconds to say so
        raise refusal
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise refusal from None


def refuse_unwritable(folder: Path) -> None:
    """Raise UserError for a folder that cannot be made or written; what writes first makes it."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file: choose a folder, not a file.")
    if not os.access(there, os.W_OK):
        raise UserError(f"{folder} cannot be written: choose a folder that you may write to.")


def refuse_absent_data(cards: Collection[TaskCard], data_root: Path | None) -> None:
    """Raise UserError where no task has its data, whole; those that have theirs are evaluated without the others."""
    reasons: list[str] = []
    for card in cards:
        reasons.append(_of_task(card, data_root))
        if not reasons[-1]:
            return
    if not reasons:
        return
    several = f"None of the {len(cards)} tasks has its data. " if len(set(reasons)) > 1 else ""
    raise UserError(f"{several}{reasons[0]}")


def refuse_absent_training_data(recipes: Iterable[Recipe], data_root: Path | None) -> None:
    """Raise UserError where the data that a recipe trains or is watched on are not there."""
    from sparc_bench.cards import discovery
    from sparc_bench.cards.binding import bind_split, bind_validation

    for recipe in recipes:
        for val in (False, True):
            bound = bind_split(recipe, discovery.declared, val=val)
            reason = _absent(recipe.data.dataset, bound.dataset, bound.split, bound.options, data_root)
            if reason:
                raise UserError(reason)
        for task in bind_validation(recipe, discovery.declared):
            reason = _absent(task.card.dataset, task.dataset, task.card.split, task.data_options, data_root)
            if reason:
                raise UserError(reason)


def may_be_model(word: str) -> bool:
    """Whether a MODEL argument can name a model; another is a mistake that is said first."""
    from sparc_bench.cards import discovery

    return ":" in word or word.endswith(".toml") or Path(word).is_dir() or word in discovery.names("models")


def refuse_absent_weights(words: Iterable[str]) -> None:
    """Raise UserError where a MODEL argument is plainly a path, and nothing is there."""
    for word in words:
        family, colon, rest = word.partition(":")
        place = code_file(rest) if family == "python" else rest if colon else word
        plain = place.startswith(("/", "~", "./", "../")) or family == "python" or place.endswith(".toml")
        if plain and not Path(place).expanduser().exists():
            raise UserError(f"There is no file or folder {place}, which {word} names: check the path.")


def code_file(word: str) -> str:
    """The file in FILE.py or FILE.py:WEIGHTS, as the family `python` is given them."""
    name, suffix, _ = word.partition(".py:")
    return f"{name}{suffix[:-1]}"


def refuse_unknown_objectives(names: Sequence[str]) -> None:
    """Raise UserError with the nearest name for an objective that nothing knows."""
    from sparc_bench.cards import discovery

    known = discovery.names("objectives")
    for name in names:
        if name not in known:
            raise UserError(f"There is no objective '{name}': {nearest(name, known, 'sparc-bench list objectives')}")


def refuse_absent_outputs(file: Path) -> None:
    """Raise UserError where a file or folder of outputs does not exist."""
    if not file.exists():
        raise UserError(f"{file} does not exist: check the path of the outputs.")


def refuse_taken(out: Path) -> None:
    """Raise UserError where a file or folder that is to be written is there already."""
    if out.exists():
        raise UserError(f"{out} is there already: name another with --out, or remove it.")


def is_plainly_absent(device: str) -> bool:
    """Whether a device is plainly none of this machine; False wherever only torch knows."""
    kind, colon, number = device.partition(":")
    if not kind.isalpha() or kind in ("gpu", "meta") or (colon and not number.isdecimal()):
        return True
    if kind not in ("cpu", "cuda", "mps", "xpu"):  # of a package beside torch, such as torch_xla
        return not entry_points(group="torch.backends") and find_spec(f"torch_{kind}") is None
    if kind == "mps":
        return sys.platform != "darwin"
    if kind == "xpu":
        return sys.platform.startswith("linux") and not Path("/dev/dri").exists() and not Path("/dev/dxg").exists()
    return kind == "cuda" and has_no_gpu()


def has_no_gpu() -> bool:
    """Whether this machine plainly has no GPU of NVIDIA or AMD; False wherever that is not plain."""
    if not sys.platform.startswith("linux"):
        return False
    devices = Path("/dev")
    if any(any(devices.glob(pattern)) for pattern in ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")):
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


def _of_task(card: TaskCard, data_root: Path | None) -> str:
    from sparc_bench.cards import discovery
    from sparc_bench.cards.binding import bind

    try:
        task = bind(card, discovery.declared)
    except UserError as error:
        return str(error)
    return _absent(card.dataset, task.dataset, card.split, task.data_options, data_root)


def _absent(dataset: str, declared: Any, split: str, options: Any, data_root: Path | None) -> str:  # noqa: ANN401 - modules and their options
    """The reader's own sentence about a root, folder or file that is not there or damaged; empty where all are well.

    A folder whose reading would take long is left to the evaluation itself, and so are the photos.
    """
    if not getattr(declared, "NEEDS_ON_DISK", ""):
        return ""
    folder = str(getattr(options, "folder", "")).partition("{")[0]
    if data_root is not None and (data_root / folder).is_dir() and not _is_quickly_read(data_root / folder):
        return ""
    from sparc_bench.cards import discovery

    if getattr(options, "absent", None) == "refuse":
        options = options.model_copy(update={"absent": "keep"})
    try:
        discovery.load("datasets", dataset).read(data_root, split, options)
    except UserError as error:
        return str(error)
    return ""


def _is_quickly_read(folder: Path) -> bool:
    """Whether a folder has so few files, and so few bytes that are no photos, that reading it takes no second."""
    files = size = 0
    for place, _, names in os.walk(folder):
        files += len(names)
        if files > MOST_FILES:
            return False
        size += sum((Path(place) / name).stat().st_size for name in names if _may_be_read(name, place))
        if size > MOST_BYTES:
            return False
    return True


def _may_be_read(name: str, place: str) -> bool:
    return not name.lower().endswith((".jpg", ".jpeg", ".png")) and (Path(place) / name).is_file()
