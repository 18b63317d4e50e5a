"""The weights that a card names, found and checked against its sha256."""

from __future__ import annotations

from pathlib import Path

from sparc_bench.cards.model_card import Weights
from sparc_bench.errors import UserError
from sparc_bench.weights import hub
from sparc_bench.weights.weights_file import file_sha256


def checked_weights(weights: Weights, folder: Path, name: str) -> Path:
    """The file (or folder) of weights that a card names, its sha256 checked; one of the hub is fetched if need be.

    Args:
        weights: what the card says.
        folder: the card's, where relative paths begin.
        name: the card's, for errors.

    Raises:
        UserError: missing, not to be had, or another file than the card means.
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
