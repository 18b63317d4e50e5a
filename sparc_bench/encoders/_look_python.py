"""What is wrong with a Python file by its text, said without torch (see `sparc_bench.models.resolve`)."""

from __future__ import annotations

from pathlib import Path

from sparc_bench.cards import discovery
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.first_checks import code_file


def refuse(card: ModelCard, weights: Path | None) -> None:
    """Raise UserError for a file that is no Python; nothing of it is executed."""
    discovery.refuse_misspelt_code(Path(code_file(str(weights or card.options["weights"]))).expanduser())
