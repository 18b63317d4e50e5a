"""Text preprocessing of transformers' checkpoints: the tokenizer, and the text cleaning that the model was trained on.

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
"""Tokens; a larger limit of a tokenizer (transformers writes 10^30) means that it declares none."""


def canonicalized(text: str) -> str:
    """Text in lower case, without ASCII punctuation, with single spaces (big_vision, image_text/prompt_engineering.py).

    >>> canonicalized("A Photo  of a CAT!")
    'a photo of a cat'
    """
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


CLEANING: dict[str, Callable[[str], str]] = {"none": str, "lower": str.lower, "canonicalize": canonicalized}
"""Value of the card option `clean` -> function that cleans a text before tokenization."""

CLEANING_OF_SIGLIP = {
    "SiglipTokenizer": "none",
    **dict.fromkeys(("GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer"), "lower"),
}
"""Tokenizer class of a SigLIP checkpoint -> text cleaning that its model was trained on.

SigLIP's tokenizer itself lower-cases and removes punctuation, as its checkpoint says (`do_lower_case`). SigLIP 2 was
trained on lower-cased texts with punctuation: big_vision, SigLIP2_demo.ipynb (`lower(key="text")|tok(length=64,
model="gemma", bos="no", eos="sticky")`) and google-research/big_vision#187. Its checkpoints of fixed size name the
plain Gemma tokenizer, which keeps case; before huggingface/transformers#43101 all of them did.
"""


@dataclass(frozen=True)
class TextInputs:
    """Text cleaning and tokenizer of a model.

    Attributes:
        tokenizer: tokenizer of transformers.
        context: largest number of tokens of a text, special tokens included; longer texts are cut before their EOS.
        clean: key of CLEANING.
        full_context: whether every text is padded to the context without a mask; else to the longest, with a mask.
        keys: names of the model's inputs.
    """

    tokenizer: Any
    context: int
    clean: str
    full_context: bool
    keys: frozenset[str]

    def __call__(self, texts: Sequence[str]) -> tuple[dict[str, Tensor], Tensor]:
        """The model's inputs, and the mask of words mask_ML (no padding, no special tokens)."""
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
    """Text cleaning and tokenizer of a checkpoint.

    Args:
        tokenizer: the checkpoint's tokenizer.
        model: the checkpoint's model.
        layout: layout of its architecture, if known.
        clean: the card option `clean`; None for the cleaning that the model was trained on.
        name: the card's name, for errors.

    Raises:
        UserError: a SigLIP model's cleaning or a context length is unknown, or the tokenizer adds no EOS.
    """
    kind = type(tokenizer).__name__
    full_context = layout is not None and layout.full_context
    if clean is None and full_context and kind not in CLEANING_OF_SIGLIP:
        known = ", ".join(CLEANING_OF_SIGLIP)
        raise UserError(
            f"{name} has the tokenizer {kind}, with which no SigLIP was published (those have {known}): write "
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
            f"The tokenizer of {name} adds no {tokenizer.eos_token} to a text, at which the text is pooled: take all "
            "tokenizer files from the same checkpoint."
        )
    keys = frozenset(inspect.signature(model.get_text_features).parameters)
    if full_context:
        keys = frozenset({"input_ids"})
        tokenizer.padding_side = "right"
    default = CLEANING_OF_SIGLIP[kind] if full_context and clean is None else "none"
    return TextInputs(tokenizer, min(lengths), clean or default, full_context, keys)
