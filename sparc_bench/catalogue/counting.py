"""Whether a split on disk has the counts that a task card states, and if not, what it seems to be."""

from __future__ import annotations

from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue.card import homes, load_all
from sparc_bench.catalogue.recognise import Counts, Seen, recognised
from sparc_bench.errors import UserError, nearest


def check_counts(card: TaskCard, counts: Counts) -> None:
    """Compare the counts on disk with a task's [expect].

    Raises:
        UserError: they differ; the sentence has both counts, and the published split that they are of where the
            catalogue knows it.
    """
    for key, expected in card.expect.items():
        if key not in counts:
            raise UserError(f"Task {card.name}: [expect] knows no '{key}': {nearest(key, counts)}")
        if counts[key] != expected:
            seen = _recognised(card, counts)
            what = f", {seen.what}" if seen else ""
            raise UserError(
                f"Task {card.name} expects {expected} {key}, but {card.dataset}:{card.split} has {counts[key]}{what}: "
                f"{seen.fix if seen else 'complete the data set'}, or write a task card of your own with these counts."
            )


def _recognised(card: TaskCard, counts: Counts) -> Seen | None:
    cards = load_all()
    here = homes(card, cards)
    own = {split: known for each in here for split, known in each.splits.items()}
    others = {
        f"{each.name}:{split}": known for each in cards if each not in here for split, known in each.splits.items()
    }
    return recognised(card.expect, counts, own, others)
