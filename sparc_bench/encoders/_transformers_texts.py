"""Texts of transformers' checkpoints: the checkpoint's own tokenizer, and the cleaning that its model was trained with.

Shapes: M texts, L tokens.
"""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparc_bench.encoders._transformers_layout import Layout
from sparc_bench.errors import UserError

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

LONGEST = 100_000
"""Tokens; a tokenizer that allows more (transformers writes 10^30) declares no longest text."""


def canonicalized(text: str) -> str:
    """Lower case without ASCII punctuation, single spaces: big_vision, image_text/prompt_engineering.py.

    >>> canonicalized("A Photo  of a CAT!")
    'a photo of a cat'
    """
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


CLEANING: dict[str, Callable[[str], str]] = {"none": str, "lower": str.lower, "canonicalize": canonicalized}
"""The option `clean` of a card -> what is done to a text before the tokenizer sees it."""

CLEANING_OF_SIGLIP = {
    "SiglipTokenizer": "none",
    **dict.fromkeys(("GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer"), "lower"),
}
"""Tokenizer of a SigLIP checkpoint -> cleaning that its model was trained with.

SigLIP's tokenizer lower-cases and takes punctuation away itself, as its checkpoint says (`do_lower_case`). SigLIP 2's
texts were lower-cased and kept their punctuation: big_vision, SigLIP2_demo.ipynb (`lower(key="text")|tok(length=64,
model="gemma", bos="no", eos="sticky")`) and google-research/big_vision#187. Its checkpoints of fixed size name the
plain Gemma tokenizer, which keeps case; so did all of them before huggingface/transformers#43101.
"""


@dataclass(frozen=True)
class TextInputs:
    """Turns texts into a model's inputs.

    Attributes:
        tokenizer: a tokenizer of transformers.
        context: the most tokens of a text, its special ones among them; longer texts lose their end, not their EOS.
        clean: a key of CLEANING.
        full_context: pad every text to the context and mask nothing; else pad to the longest and mask the padding.
        keys: the inputs that the model takes.
    """

    tokenizer: Any
    context: int
    clean: str
    full_context: bool
    keys: frozenset[str]

    def __call__(self, texts: Sequence[str]) -> tuple[dict[str, Tensor], Tensor]:
        """The model's inputs, and where they are words of the text (mask_ML: no padding, no special tokens)."""
        found = self.tokenizer(
            [CLEANING[self.clean](text) for text in texts],
            padding="max_length" if self.full_context else "longest",
            truncation=True,
            max_length=self.context,
            return_attention_mask=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        mask_ML = found["attention_mask"].bool() & ~found["special_tokens_mask"].bool()
        return {key: found[key] for key in found if key in self.keys}, mask_ML


def text_inputs(tokenizer: Any, model: Any, layout: Layout | None, clean: str | None, name: str) -> TextInputs:  # noqa: ANN401
    """The texts of a checkpoint.

    Args:
        tokenizer: its tokenizer.
        model: its model.
        layout: its architecture's, if it is known.
        clean: the card's option; None for what the model was trained with.
        name: the card's name, for errors.

    Raises:
        UserError: cleaning or longest text of a SigLIP are unknown; a tokenizer that marks no end of text.
    """
    kind = type(tokenizer).__name__
    full_context = layout is not None and layout.full_context
    if clean is None and full_context and kind not in CLEANING_OF_SIGLIP:
        known = ", ".join(CLEANING_OF_SIGLIP)
        raise UserError(
            f"The texts of {name} are cut by a {kind}, with which no SigLIP was published (those have {known}): write "
            'clean = "none", "lower" or "canonicalize" into the options of its card, as it was trained.'
        )
    text_config = getattr(model.config, "text_config", None)
    limits = (getattr(text_config, "max_position_embeddings", None), tokenizer.model_max_length)
    lengths = [limit for limit in limits if isinstance(limit, int) and limit <= LONGEST]
    if not lengths:
        raise UserError(f"{name} declares no longest text: set model_max_length in its tokenizer_config.json.")
    end = tokenizer.eos_token_id
    if layout is not None and end is not None and tokenizer("a").input_ids[-1] != end:
        raise UserError(
            f"The tokenizer of {name} puts no {tokenizer.eos_token} behind a text, from which its vector is read: take "
            "all tokenizer files from the same checkpoint."
        )
    keys = frozenset(inspect.signature(model.get_text_features).parameters)
    if full_context:
        keys = frozenset({"input_ids"})
        tokenizer.padding_side = "right"
    default = CLEANING_OF_SIGLIP[kind] if full_context and clean is None else "none"
    return TextInputs(tokenizer, min(lengths), clean or default, full_context, keys)
