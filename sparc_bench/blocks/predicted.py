"""From a model to what a protocol scores: the blocks of all examples, each computed once, by whichever process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from sparc_bench.blocks.block_store import BlocksInMemory, BlockStore, StoredBlocks
from sparc_bench.blocks.kept_encoder import KeptEncoder, feature_blocks
from sparc_bench.blocks.ranks import Alone, Ranks, from_first
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.errors import StoppedError
from sparc_bench.outputs.scores_encoder import ScoresEncoder
from sparc_bench.protocol import AT_ONCE, Block, Outcome, Predictions, Work


def outcome_of(
    protocol: ModuleType,
    encoder: Encoder,
    data: Examples,
    options: Any,  # noqa: ANN401 - as below
    at_once: int = AT_ONCE,
) -> Outcome:
    """The outcome of a model under a protocol, in memory and in this process."""
    found = predicted(protocol, encoder, data, options, BlocksInMemory(), at_once)
    return outcome_from(protocol, found, data, options)


def outcome_from(protocol: ModuleType, predictions: Predictions | Encoder, data: Examples, options: Any) -> Outcome:  # noqa: ANN401 - as above
    """The outcome of predictions, with the notes on how they were read."""
    outcome: Outcome = protocol.score(predictions, data, options)
    notes = predictions.notes if isinstance(predictions, Predictions | ScoresEncoder) else ()
    return replace(outcome, notes=(*notes, *outcome.notes))


def predicted(
    protocol: ModuleType,
    encoder: Encoder,
    data: Examples,
    options: Any,  # noqa: ANN401 - as above
    store: BlockStore,
    at_once: int = AT_ONCE,
    ranks: Ranks = Alone(),  # noqa: B008 - it has no state
) -> Predictions | Encoder:
    """What `protocol.score` scores: predictions, or for a protocol with `kept` an encoder with the features in `store`.

    Only blocks that the store lacks are computed; the processes share them, and each returns when all are there.

    Args:
        protocol: its module.
        encoder: the model.
        data: all examples.
        options: of the protocol.
        store: of the blocks, the same one for all processes.
        at_once: units of examples in a block.
        ranks: the processes.

    Raises:
        UserError: in this process or another one.
    """
    parts = _parts(protocol, data, options, at_once)
    need = kept_features(protocol, encoder)
    if need is not None:
        _share_out(store, parts, ranks, lambda mine: feature_blocks(encoder, Work(data, mine), need))
        return KeptEncoder(encoder, store, data, parts)
    _share_out(store, parts, ranks, lambda mine: protocol.predict(encoder, Work(data, mine), options))
    return Predictions(StoredBlocks(store, len(parts)), encoder.paths)


def kept_features(protocol: ModuleType, encoder: Encoder) -> frozenset[str] | None:
    """Image features of this model that the protocol keeps in place of blocks; None where it predicts blocks."""
    need: frozenset[str] | None = protocol.kept(encoder) if hasattr(protocol, "kept") else None
    return need


def _parts(protocol: ModuleType, data: Examples, options: Any, at_once: int) -> Sequence[Int[ndarray, "N"]]:  # noqa: ANN401 - as above
    """Indices of the examples of each block."""
    units = protocol.units(data, options) if hasattr(protocol, "units") else None
    return Work.whole(data, units, at_once).parts


def _share_out(
    store: BlockStore,
    parts: Sequence[Int[ndarray, "N"]],
    ranks: Ranks,
    blocks: Callable[[Sequence[Int[ndarray, "N"]]], Iterator[Block]],
) -> None:
    missing = from_first(ranks, lambda: [number for number in range(len(parts)) if store.read(number) is None])
    mine = [int(number) for number in np.array_split(np.array(missing, dtype=np.int64), ranks.world)[ranks.rank]]

    def write_mine() -> None:
        if not mine:
            return
        for number, block in zip(mine, blocks([parts[number] for number in mine]), strict=True):
            if not np.array_equal(block.index_N, parts[number]):
                raise RuntimeError(f"block {number} is about other examples than its part")
            store.write(number, block)
            ranks.heed()

    try:
        ranks.together(write_mine)
    except StoppedError as stopped:
        raise stopped.where(store.kept(len(parts))) from None
