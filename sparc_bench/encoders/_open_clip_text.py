"""Text towers of open_clip with their tokenizers: text cleaning, context length, padding and pooling of the model.

Shapes: M texts, L tokens, W width, D joint width.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from sparc_bench.errors import UserError, reason
from sparc_bench.features import TextFeatures
from sparc_bench.weights import hub

TRIMMED_POOLING = ("argmax", "eos")
"""Pooling types that take the end-of-text token, which attends to no padding under a causal mask."""


class OpenClipText:
    """Text tower with tokenizer; its vectors are not normalised.

    Attributes:
        gives_tokens: whether the tower gives token vectors in the joint space (each token's final norm and projection).
        trims: whether padding beyond the longest text of a batch is left out, which changes no vector.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:  # noqa: ANN401 - classes of open_clip
        self._model, self._tokenizer = model, tokenizer
        self._text = getattr(model, "text", model)
        own = not isinstance(self._text, HFTextEncoder)
        self._has_class = own and getattr(self._text, "cls_emb", None) is not None
        self._plain = own and not self._has_class and not getattr(self._text, "use_pad_mask", False)
        self.gives_tokens = own
        self._pool: str = getattr(self._text, "text_pool_type", getattr(self._text, "pool_type", ""))
        self._end: int = getattr(self._text, "text_eos_id", getattr(self._text, "eos_id", -1))
        self.trims = self._plain and self._text.attn_mask is not None and self._pool in TRIMMED_POOLING

    def __call__(self, texts: Sequence[str], need: frozenset[str], device: torch.device) -> TextFeatures:
        """Global vectors and token vectors with the mask of words, as far as `need` names them."""
        ids_ML: Tensor = self._tokenizer(list(texts))
        words_ML = self._words(ids_ML)
        if self.trims:
            length = int(self._ends(ids_ML).max()) + 1
            ids_ML, words_ML = ids_ML[:, :length], words_ML[:, :length]
        ids_ML = ids_ML.to(device)
        wants_tokens = "tokens" in need
        if not self._plain:
            tokens_MLW = self._beside_class(ids_ML) if wants_tokens else None
            global_MD = self._model.encode_text(ids_ML, normalize=False) if "global" in need else None
        else:
            tokens_MLW = self._hidden(ids_ML)
            pooled_MW = text_global_pool(tokens_MLW, ids_ML, pool_type=self._pool, eos_token_id=self._end)
            global_MD = self._projected(pooled_MW) if "global" in need else None
        return TextFeatures(
            texts=tuple(texts),
            global_MD=global_MD,
            tokens_MLD=self._projected(tokens_MLW) if wants_tokens and tokens_MLW is not None else None,
            mask_ML=words_ML.to(device) if wants_tokens else None,
        )

    def _hidden(self, ids_ML: Tensor) -> Tensor:
        """Tokens after the final norm: open_clip's `encode_text` for texts shorter than the context."""
        text = self._text
        length = ids_ML.shape[1]
        x_MLW = text.token_embedding(ids_ML) + text.positional_embedding[:length]
        mask_LL = None if text.attn_mask is None else text.attn_mask[:length, :length]
        normed: Tensor = text.ln_final(text.transformer(x_MLW, attn_mask=mask_LL))
        return normed

    def _beside_class(self, ids_ML: Tensor) -> Tensor:
        """Tokens after the final norm, for a tower with a class token after the text (CoCa)."""
        x_MLW, mask = self._text._embeds(ids_ML)
        normed: Tensor = self._text.ln_final(self._text.transformer(x_MLW, attn_mask=mask))
        return normed[:, : ids_ML.shape[1]]

    def _projected(self, x: Tensor) -> Tensor:
        projection = self._text.text_projection
        if projection is None:
            return x
        projected: Tensor = projection(x) if isinstance(projection, nn.Module) else x @ projection
        return projected

    def _ends(self, ids_ML: Tensor) -> Tensor:
        """Position of the pooled token of each text."""
        marks_ML = ids_ML if self._pool == "argmax" else (ids_ML - self._end).eq(0).int()
        return marks_ML.argmax(dim=1)

    def _words(self, ids_ML: Tensor) -> Tensor:
        """Mask of the tokens that are words: no padding, no special tokens."""
        if isinstance(self._tokenizer, SimpleTokenizer):  # its padding is the id of "!"
            places_L = torch.arange(ids_ML.shape[1])
            ends_M = (ids_ML - self._tokenizer.eot_token_id).eq(0).int().argmax(dim=1)
            return (places_L > 0).logical_and(places_L < ends_M[:, None])
        known = self._tokenizer.tokenizer
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id")
        special = {getattr(known, name, None) for name in names} - {None}
        if self._tokenizer.strip_sep_token:
            special.add(0)
        return ~torch.isin(ids_ML, torch.tensor(sorted(special)))


def open_clip_tokenizer(text_cfg: Mapping[str, Any], folder: Path | None, model: str) -> Any:  # noqa: ANN401 - open_clip's
    """Tokenizer of a model, as open_clip.get_tokenizer chooses it; local files take precedence over the hub.

    Args:
        text_cfg: open_clip's configuration of the text tower.
        folder: folder of a model that contains its tokenizer; None for the repository that the configuration names.
        model: name of the model, for errors.

    Raises:
        UserError: the tokenizer or its library is missing.
    """
    context = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    named = text_cfg.get("hf_tokenizer_name")
    if not named:
        return _own_tokenizer(context, json.dumps(options))
    options |= {"context_length": context, "tokenizer_mode": text_cfg.get("tokenizer_mode"), "trust_remote_code": False}
    try:
        return HFTokenizer(str(folder or named), local_files_only=True, **options)
    except ImportError:
        raise UserError(
            f"The tokenizer of {model} needs the library transformers: run pip install 'sparc-bench[hf]'."
        ) from None
    except (OSError, ValueError) as error:
        if folder is not None or Path(named).is_dir():
            raise UserError(
                f"{folder or named} holds no tokenizer for {model} ({reason(error)}): put the files of {named} there "
                "(tokenizer.json, tokenizer_config.json)."
            ) from None
    hub.obtain(named, "tokenizer_config.json", None, None)
    print(f"Downloading the vocabulary of {named} too.", file=sys.stderr)  # noqa: T201 - announces the download
    try:
        return HFTokenizer(named, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The tokenizer {named} of {model} cannot be fetched ({reason(error)}): run hf download {named}."
        ) from None


@cache
def _own_tokenizer(context: int, options: str) -> SimpleTokenizer:
    """open_clip's own byte-pair tokenizer, cached because its vocabulary takes long to build."""
    return SimpleTokenizer(context_length=context, **json.loads(options))
