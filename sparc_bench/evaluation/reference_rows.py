"""Reference rows and intervals of an outcome, as a record holds them."""

from __future__ import annotations

from sparc_bench.cards.binding import BoundTask
from sparc_bench.dataset import DataSplit
from sparc_bench.encoder import Encoder
from sparc_bench.evaluation.guessing_encoders import ConstantEncoder, RandomEncoder
from sparc_bench.evaluation.watched_encoder import WatchedEncoder
from sparc_bench.metrics.estimate import estimate
from sparc_bench.protocol import Outcome
from sparc_bench.records.record import Metric, rounded_values


def reference_rows(
    task: BoundTask, data: DataSplit, outcome: Outcome, encoder: WatchedEncoder | None, *, has_towers: bool
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The rows that the protocol knows, and those that take another encoder (values only); notes about those missing.

    Args:
        task: the task, whose card names the rows.
        data: of the task.
        outcome: of what is evaluated.
        encoder: the one beside which guessing encoders stand, or None.
        has_towers: whether `encoder` may have an untrained copy.
    """
    rows = {name: rounded_values(values) for name, values in outcome.reference_rows.items()}
    if encoder is None:
        return rows, []
    others: dict[str, Encoder] = {}
    notes = []
    wanted = task.card.reference_rows
    if "constant" in wanted and "constant" not in rows:
        others["constant"] = ConstantEncoder(encoder)
    if "random" in wanted:
        others["random"] = RandomEncoder(encoder)
    if "untrained" in wanted and has_towers:
        towers = encoder.untrained()
        if towers is None:
            notes.append("There are no untrained towers of this model to compare with.")
        else:
            others["untrained"] = WatchedEncoder(towers, encoder.count)
    for name, other in others.items():
        scored: Outcome = task.protocol.run(other, data, task.options)
        rows[name] = rounded_values({metric: stat.value for metric, stat in scored.metrics.items()})
    return rows, notes


def estimated(outcome: Outcome) -> tuple[dict[str, Metric], dict[str, dict[str, Metric]]]:
    """Metrics, and grouping -> group -> metric, each with its interval."""
    metrics = {name: Metric.of(estimate(stat), stat) for name, stat in outcome.metrics.items()}
    groups = {
        grouping: {group: Metric.of(estimate(stat), stat) for group, stat in of.items()}
        for grouping, of in outcome.groups.items()
    }
    return metrics, groups
