"""Rounding to half precision, in which the features of frozen towers are kept.

Shapes: B images, S vectors of an image, V their width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparc_bench.errors import UserError


def halved(features_BSV: Tensor, ids: Sequence[str], model: str) -> Tensor:
    """Features in half precision.

    Raises:
        UserError: a feature is not finite, or too large for half precision; `ids` name the images.
    """
    half_BSV = features_BSV.half()
    if not half_BSV.isfinite().all():
        odd_B = ~half_BSV.isfinite().flatten(1).all(1)
        of = f"'{ids[int(odd_B.int().argmax())]}'" if ids else "an image"
        if not features_BSV.isfinite().all():
            raise UserError(
                f"The frozen image tower of {model} gives {of} features that are not finite (NaN or infinite): take "
                "other weights."
            )
        largest = float(features_BSV.abs().max())
        raise UserError(
            f"The frozen image tower of {model} gives {of} a feature of {largest:.3g}, and half precision, in which "
            "features are kept, ends at 65504: take another tower, or leave freeze out."
        )
    return half_BSV
