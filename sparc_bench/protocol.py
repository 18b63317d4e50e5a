"""What a protocol returns: statistics that carry their own uncertainty, and what happened to every example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Int
from numpy import ndarray

from sparc_bench.metrics.statistic import Statistic


@dataclass(frozen=True)
class Outcome:
    """The result of one protocol on one encoder.

    Attributes:
        metrics: name -> statistic. A patch path's metrics are named `local/miou`, `global/miou`; so are groups that
            belong to the task itself.
        groups: name of a grouping (such as "class" or "kind") -> group -> statistic of the headline metric.
        examples: name -> array with one row per example of the data split, in its order; `correct` (credit of 0 to 1)
            is what `compare` looks for flips in, where the protocol has such a thing.
        rows: name -> array with one row per caption, detection or region (ranks, scores), in the protocol's order.
        ties: how many comparisons that decided a score were tied.
        counts: what was scored, for the record ({"images": 1000, "captions": 5000}).
        reference: name of a reference row -> metric -> value, where the protocol itself knows it (best constant,
            oracle at the model's own grid, ceiling).
        notes: sentences that belong beside the number.
        scored: the examples of the data split that arrays and statistics are over, where the others are only learnt
            from (a probe's train images); None: all.
    """

    metrics: Mapping[str, Statistic]
    groups: Mapping[str, Mapping[str, Statistic]] = field(default_factory=dict)
    examples: Mapping[str, ndarray] = field(default_factory=dict)
    rows: Mapping[str, ndarray] = field(default_factory=dict)
    ties: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    reference: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    scored: Int[ndarray, "T"] | None = None
