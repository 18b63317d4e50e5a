"""The weights file of a card, found and compared with the card's sha256."""

from __future__ import annotations

from pathlib import Path

from sparc_bench.cards.model_card import Weights
from sparc_bench.errors import UserError
from sparc_bench.weights import hub
from sparc_bench.weights.weights_file import file_sha256


def checked_weights(weights: Weights, folder: Path, name: str) -> Path:
    """The path of a card's weights (a file or folder) with the card's sha256; a hub file is downloaded where missing.

    Args:
        weights: the table [weights] of the card.
        folder: folder of the card, for relative paths.
        name: name of the card, for errors.

    Raises:
        UserError: the weights are missing, cannot be downloaded, or have another sha256.
    """
    if weights.hub is not None:
        return hub.obtain(weights.hub, weights.file, weights.revision, weights.sha256)
    path = folder / Path(weights.file).expanduser()
    if not path.exists():
        raise UserError(
            f"The weights {path} of {name} are missing: restore the file, mend the card, or name a recipe's run with "
            "--run."
        )
    found = file_sha256(path)
    if found != weights.sha256:
        raise UserError(
            f"{path} has the sha256 {found}, but the card of {name} says {str(weights.sha256)[:12]}...: "
            "restore the file, or mend the card."
        )
    return path
