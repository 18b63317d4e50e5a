"""Problems of the catalogue: invalid data cards, tasks without a data card, counts that disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparc_bench.cards import discovery, photo_lists
from sparc_bench.cards.task_card import TaskCard, read_task
from sparc_bench.catalogue.count_diagnosis import in_words, same_split
from sparc_bench.catalogue.data_card import DataCard, cards_of_task, lies_on_disk, read_card
from sparc_bench.errors import UserError, nearest


def catalogue_problems(tasks: Path) -> list[str]:
    """One sentence for each problem of the cards under `tasks/data` and of the tasks that read these data sets."""
    found: list[str] = []
    cards: list[DataCard] = []
    for path in sorted(tasks.glob("data/*.toml")):
        try:
            cards.append(read_card(path))
        except UserError as error:
            found.append(str(error))
    found += [sentence for card in cards for sentence in _of_card(card, cards)]
    for path in sorted(tasks.glob("*.toml")):
        try:
            sentence = task_problem(read_task(path), cards)
        except UserError:  # an invalid task card, reported elsewhere
            continue
        found += [sentence] if sentence else []
    return found


def _of_card(card: DataCard, cards: Sequence[DataCard]) -> list[str]:
    where = f"Data set {card.name}"
    known = discovery.names("datasets")
    names = [other.name for other in cards]
    found = [
        f"{where}: there is no reader '{reader}': {nearest(reader, known, 'sparc-bench list datasets')}"
        for reader in card.readers
        if reader not in known
    ]
    found += [
        f"{where}: there is no data set '{name}': {nearest(name, names, 'sparc-bench data list')}"
        for name in (*([card.part_of] if card.part_of else ()), *card.photos_in)
        if name not in names
    ]
    try:
        if card.classes_from:
            photo_lists.refuse_unknown_source(card.classes_from, f"{where}: classes_from")
        if card.photos_from:
            photo_lists.by_name(card.photos_from)
    except UserError as error:
        found.append(str(error))
    twins = [other.name for other in cards if other is not card and card.folder and other.folder == card.folder]
    if twins:
        found.append(f"{where}: its folder {card.folder} is that of {twins[0]} too: make one card of them.")
    return found


def task_problem(task: TaskCard, cards: Sequence[DataCard]) -> str | None:
    """A sentence where a task's data set has no single card, or other counts than its card; None without a problem."""
    if not lies_on_disk(task):
        return None
    here = cards_of_task(task, cards)
    if len(here) != 1:
        which = f"{', '.join(card.name for card in here)} all do" if here else "none does"
        return (
            f"Task {task.name}: one card of tasks/data has to describe the folder that {task.dataset} reads, {which}: "
            "write tasks/data/NAME.toml with its folder and readers."
        )
    (card,) = here
    if not task.sample and task.expect and not same_split(task.expect, card.splits):
        return (
            f"Task {task.name} expects {in_words(task.expect)}, which is no published split of tasks/data/{card.name}"
            f".toml: mend [expect] or [splits]."
        )
    return None
