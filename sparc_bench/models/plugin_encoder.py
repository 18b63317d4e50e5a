"""Check of an encoder that a plug-in's `load` returned, against `sparc_bench.encoder.Encoder`."""

from __future__ import annotations

from typing import Any, cast

from sparc_bench.encoder import Encoder, ImageTextEncoder
from sparc_bench.errors import UserError, nearest

GIVES = frozenset({"image", "text", "global", "branches", "patches", "tokens", "detect"})
"""Values that `Encoder.gives` can hold."""


def checked_encoder(encoder: object, where: str, code: str) -> Encoder:
    """The encoder, with the hash of its code (`code_hash`) for the record and the feature cache.

    Args:
        encoder: object that the plug-in's `load` returned.
        where: the plug-in's name or file, for the error.
        code: sha256 of the plug-in.

    Raises:
        UserError: an attribute or method of `Encoder` is missing, or `gives` holds an unknown value.
    """
    if missing := missing_parts(encoder):
        raise UserError(
            f"The {type(encoder).__name__} that load of {where} returns has no {', '.join(missing)}: derive its class "
            "from sparc_bench.encoder.ImageTextEncoder, or add them."
        )
    found = cast("Encoder", encoder)
    odd = sorted(found.gives - GIVES)
    if odd:
        raise UserError(f"The encoder of {where} gives '{odd[0]}', which no task knows: {nearest(odd[0], GIVES)}")
    cast("Any", found).code_hash = code
    if isinstance(found, ImageTextEncoder) and found.identity is not None:
        found.identity = {**found.identity, "plug-in": code}
    return found


def missing_parts(encoder: object) -> list[str]:
    """Attributes and methods of `Encoder` that an object lacks."""
    wanted = {*Encoder.__annotations__, *(name for name in vars(Encoder) if not name.startswith("_"))}
    if "detect" in getattr(encoder, "gives", ()):
        wanted.add("detect")
    return sorted(name for name in wanted if not hasattr(encoder, name))
