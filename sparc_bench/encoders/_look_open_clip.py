"""What is wrong with a MODEL of open_clip by its name alone, said without torch (see `sparc_bench.models.resolve`)."""

from __future__ import annotations

from pathlib import Path

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.weights import open_clip_names as names


def refuse(card: ModelCard, weights: Path | None) -> None:
    """Raise UserError for an unknown architecture or tag, or weights that name no architecture."""
    if weights is not None:
        names.refuse_without_configuration(weights)
        return
    named = str(card.options["weights"])
    if named.startswith(("hf-hub:", "local-dir:")):
        return
    arch, tag = names.split(named)
    names.refuse_unknown_architecture(arch)
    if not tag:
        raise names.unnamed_weights(arch, f"Model {card.name}")
    if not names.is_tag(arch, tag):
        names.named_file(arch, tag)
