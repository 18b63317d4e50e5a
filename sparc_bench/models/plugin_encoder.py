"""Check of an encoder that a plug-in's `load` returned, against `sparc_bench.encoder.Encoder`."""

from __future__ import annotations

from typing import cast

from sparc_bench.encoder import GIVES, Encoder, ImageTextEncoder
from sparc_bench.errors import UserError, nearest

METHODS = {"preprocess": "", "stream": "", "texts": "", "similarity": "", "dense_scores": "patches"} | {
    part: part for part in ("detect", "propose", "generate")
}
"""Method that a class has to write itself -> the value of `gives` that asks for it; empty: always."""


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
            "from sparc_bench.encoder.ImageTextEncoder (or Encoder, which has the optional parts), or add them."
        )
    found = cast("Encoder", encoder)
    odd = sorted(found.gives - GIVES)
    if odd:
        raise UserError(f"The encoder of {where} gives '{odd[0]}', which no task knows: {nearest(odd[0], GIVES)}")
    found.code_hash = code
    if isinstance(found, ImageTextEncoder) and found.identity is not None:
        found.identity = {**found.identity, "plug-in": code}
    return found


def missing_parts(encoder: object) -> list[str]:
    """Attributes and methods of `Encoder` that an object lacks, those that have no default first."""
    gives = getattr(encoder, "gives", ())
    methods = {name for name, asks in METHODS.items() if not asks or asks in gives}
    declared = {*Encoder.__annotations__, *(name for name in vars(Encoder) if not name.startswith("_"))}
    own = {name for name in Encoder.__annotations__ if not hasattr(Encoder, name)} | methods
    return sorted(
        name
        for name in own
        if not hasattr(encoder, name) or (name in methods and getattr(type(encoder), name) is getattr(Encoder, name))
    ) or sorted(name for name in declared if not hasattr(encoder, name))
