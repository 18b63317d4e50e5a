"""Reference rows and intervals of an outcome, as a record holds them."""

from __future__ import annotations

from functools import partial

from sparc_bench.blocks.block_store import BlockStore
from sparc_bench.blocks.predicted import kept_features, predicted
from sparc_bench.blocks.ranks import Ranks, by_first
from sparc_bench.cards.binding import BoundTask
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.evaluation.guessing_encoders import ConstantEncoder, RandomEncoder
from sparc_bench.evaluation.scorer import Scorer
from sparc_bench.evaluation.watched_encoder import WatchedEncoder
from sparc_bench.metrics.estimate import estimate
from sparc_bench.protocol import Outcome, Predictions
from sparc_bench.records.record import Metric, rounded_values


def reference_rows(
    task: BoundTask, data: Examples, outcome: Outcome | None, scorer: Scorer, store: BlockStore, ranks: Ranks
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The rows that the protocol knows, and those that take another encoder (values only); notes about those missing.

    Args:
        task: the task, whose card names the rows.
        data: of the task.
        outcome: of what is evaluated; None in all processes but the first.
        scorer: of what is evaluated.
        store: its blocks; those of the rows lie within.
        ranks: the processes.
    """
    rows = {} if outcome is None else {name: rounded_values(of) for name, of in outcome.reference_rows.items()}
    known = ranks.gather(list(rows))[0]
    encoder = scorer.encoder
    if encoder is None:
        return rows, []
    others: dict[str, Encoder] = {}
    notes = []
    wanted = task.card.reference_rows
    if "constant" in wanted and "constant" not in known:
        others["constant"] = ConstantEncoder(encoder)
    if "random" in wanted:
        others["random"] = RandomEncoder(encoder)
    if "untrained" in wanted and scorer.has_towers:
        towers = encoder.untrained()
        if towers is None:
            notes.append("There are no untrained towers of this model to compare with.")
        else:
            others["untrained"] = WatchedEncoder(towers, encoder.count)
    for name, other in others.items():
        guess = name != "untrained"  # whose vectors are quicker drawn again than read
        found = (
            other
            if guess and kept_features(task.protocol, other) is not None
            else predicted(task.protocol, other, data, task.options, store.inner(name), scorer.at_once, ranks)
        )
        values = by_first(ranks, partial(_values, task, data, found))
        if values is not None:
            rows[name] = values
    return rows, notes


def _values(task: BoundTask, data: Examples, predictions: Predictions | Encoder) -> dict[str, float]:
    scored: Outcome = task.protocol.score(predictions, data, task.options)
    return rounded_values({metric: statistic.value for metric, statistic in scored.metrics.items()})


def estimated(outcome: Outcome) -> tuple[dict[str, Metric], dict[str, dict[str, Metric]]]:
    """Metrics, and grouping -> group -> metric, each with its interval."""
    metrics = {name: Metric.of(estimate(stat), stat) for name, stat in outcome.metrics.items()}
    groups = {
        grouping: {group: Metric.of(estimate(stat), stat) for group, stat in of.items()}
        for grouping, of in outcome.groups.items()
    }
    return metrics, groups
