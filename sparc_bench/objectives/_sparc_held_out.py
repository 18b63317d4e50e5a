"""The figures of SPARC's fine loss on held-out pairs with the true, a shuffled and a grey image, and what they mean.

Shapes: X captions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def held_out_figures(
    losses: Mapping[str, Tensor], correct: Mapping[str, Tensor], words_X: Tensor, scale: float
) -> dict[str, Any]:
    """Figures of the kinds of image "true", "shuffled" and "grey".

    Args:
        losses: kind -> loss of each caption in nats, X.
        correct: kind -> number of words of each caption whose grouped vector is closest to its own token, X.
        words_X: number of words of each caption.
        scale: inverse temperature of the losses.

    Returns:
        Mean loss, standard error and token accuracy for each kind of image; the paired gains of the true image over
        both others with 95 % intervals (normal approximation); a sentence about their meaning.
    """
    count = int(words_X.sum())
    figures: dict[str, Any] = {"captions": len(words_X), "scale": scale}
    for kind in losses:
        figures[kind] = {
            **_mean_and_error(losses[kind]),
            "token_accuracy": float(correct[kind].sum()) / max(count, 1),
        }
    for kind in ("shuffled", "grey"):
        gain = _mean_and_error(losses[kind] - losses["true"])
        half = 1.96 * gain["standard_error"]
        figures[f"gain_over_{kind}"] = {
            "value": gain["loss"],
            "low": gain["loss"] - half,
            "high": gain["loss"] + half,
        }
    gains = ", ".join(
        f"{figures[f'gain_over_{kind}']['value']:.4f} "
        f"[{figures[f'gain_over_{kind}']['low']:.4f}, {figures[f'gain_over_{kind}']['high']:.4f}] on a {kind} image"
        for kind in ("grey", "shuffled")
    )
    if figures["gain_over_grey"]["low"] <= 0:
        verdict = "the fine loss does not need the image"
    elif figures["gain_over_shuffled"]["low"] <= 0:
        verdict = "another image serves the fine loss as well as its own"
    else:
        verdict = "the fine loss gains from its own image"
    figures["verdict"] = f"{verdict}: {gains}"
    return figures


def _mean_and_error(values_X: Tensor) -> dict[str, float]:
    error = float(values_X.std() / math.sqrt(len(values_X))) if len(values_X) > 1 else math.nan
    return {"loss": float(values_X.mean()), "standard_error": error}
