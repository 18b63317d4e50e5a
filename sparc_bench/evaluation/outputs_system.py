"""Another system's outputs as what a task is evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sparc_bench.cards.binding import BoundTask
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.evaluation.new_record import Provenance
from sparc_bench.evaluation.scorer import Scorer
from sparc_bench.evaluation.watched_encoder import WatchedEncoder
from sparc_bench.outputs.scores_encoder import ScoresEncoder
from sparc_bench.outputs.similarity import Similarity
from sparc_bench.protocol import Predictions


@dataclass
class OutputsSystem:
    """Candidate that is another system's outputs (see `sparc_bench.evaluation.pipeline.Candidate`).

    Attributes:
        card: of the system.
        outputs: what its file holds.
        weights_hash: sha256 of the file.
        predictions: reads the outputs as predictions, as the task's protocol has it.
        seed: always the first.
        opens_images: never.
    """

    card: ModelCard
    outputs: Any
    weights_hash: str
    predictions: Callable[[Any, Examples, Any], Predictions | Encoder]
    seed: int = 0
    opens_images: bool = False

    def provenance(self, task: BoundTask, data: Examples) -> Provenance:  # noqa: ARG002 - the same for every task
        """Provenance of the outputs: the sha256 of their file."""
        return Provenance(self.weights_hash)

    @contextmanager
    def scorer(self, task: BoundTask, data: Examples) -> Iterator[Scorer]:
        """The protocol's rule for such a file; guessing encoders can stand beside a similarity matrix alone."""
        beside = None
        if isinstance(self.outputs, Similarity):
            beside = WatchedEncoder(ScoresEncoder(self.outputs, data.views), lambda _: None)
        yield Scorer(
            lambda _store, _ranks: self.predictions(self.outputs, data, task.options), beside, has_towers=False
        )
