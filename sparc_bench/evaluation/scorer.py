"""What is evaluated, ready for one task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparc_bench.blocks.block_store import BlockStore
from sparc_bench.blocks.ranks import Ranks
from sparc_bench.encoder import Encoder
from sparc_bench.evaluation.watched_encoder import WatchedEncoder
from sparc_bench.protocol import AT_ONCE, Predictions


@dataclass(frozen=True)
class Scorer:
    """One candidate, ready for one task.

    Attributes:
        predicted: gives what the protocol scores, from a store of blocks that the processes share.
        encoder: the one beside which guessing encoders stand; None where the outputs are those of no encoder.
        has_towers: whether it is a model, of which an untrained copy may exist.
        at_once: images, or groups of them, in a block.
        goes_on: whether blocks may outlive the process: not those of code that has no hash.
    """

    predicted: Callable[[BlockStore, Ranks], Predictions | Encoder]
    encoder: WatchedEncoder | None
    has_towers: bool
    at_once: int = AT_ONCE
    goes_on: bool = False
