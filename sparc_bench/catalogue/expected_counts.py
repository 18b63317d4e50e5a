"""Comparison of a split's counts on disk with [expect] of a task card, and the diagnosis of a difference."""

from __future__ import annotations

from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue.count_diagnosis import Counts, Diagnosis, diagnose
from sparc_bench.catalogue.data_card import cards_of_task, load_all
from sparc_bench.errors import UserError, nearest


def check_counts(card: TaskCard, counts: Counts) -> None:
    """Compare the counts on disk with a task's [expect].

    Raises:
        UserError: the counts differ; the sentence names both, and the published split with the counts on disk where the
            catalogue has one.
    """
    for key, expected in card.expect.items():
        if key not in counts:
            raise UserError(f"Task {card.name}: [expect] knows no '{key}': {nearest(key, counts)}")
        if counts[key] != expected:
            diagnosis = _diagnosis_of(card, counts)
            what, fix = (f", {diagnosis.what}", diagnosis.fix) if diagnosis else ("", "complete the data set")
            raise UserError(
                f"Task {card.name} expects {expected} {key}, but {card.dataset}:{card.split} has {counts[key]}{what}: "
                f"{fix}, or write a task card of your own with these counts."
            )


def _diagnosis_of(card: TaskCard, counts: Counts) -> Diagnosis | None:
    cards = load_all()
    here = cards_of_task(card, cards)
    own = {split: known for each in here for split, known in each.splits.items()}
    others = {
        f"{each.name}:{split}": known for each in cards if each not in here for split, known in each.splits.items()
    }
    return diagnose(card.expect, counts, own, others)
