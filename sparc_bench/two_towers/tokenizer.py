"""The tokenizer of our own models: open_clip's BPE, or a small vocabulary built from a recipe's captions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import accumulate, pairwise
from typing import Any

import torch
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from sparc_bench.cards.recipe import TextTowerTable
from sparc_bench.errors import UserError, reason
from sparc_bench.objective import Tokens


class Tokenizer:
    """Tokenizer with masks: BOS, words, EOS, padding; a text longer than the context is cut before its EOS.

    Args:
        context: largest number of ids of a text, BOS and EOS included.
        state: own vocabulary, as `build_vocabulary` returns it; "" for open_clip's.
        pad_id: padding id with open_clip's vocabulary; None for an extra id.
        clean: open_clip's name of the text cleaning, with its vocabulary.

    Attributes:
        vocabulary: number of ids, padding included.
        pad_id: id of the positions after EOS.
        state: own vocabulary, which checkpoints keep; "" for open_clip's.
    """

    def __init__(self, context: int, state: str = "", pad_id: int | None = None, clean: str = "lower") -> None:
        self.context = context
        self.state = state
        self._words: Callable[[str], list[int]]
        self.pad_id: int
        if state:
            fast = _own_words(state)
            fast.encode_special_tokens = True  # "<eos>" in a caption is three words, not the end
            self._words = lambda text: fast.encode(text, add_special_tokens=False).ids
            # the order of build_vocabulary's special tokens
            self.pad_id, self._bos, self._eos = 0, 1, 2
            self.vocabulary: int = fast.get_vocab_size()
        else:
            bpe = _open_clip_words(clean)
            self._words = bpe.encode
            self._bos, self._eos = bpe.sot_token_id, bpe.eot_token_id
            # open_clip pads with 0, the id of the word "!": our own towers get an id for padding alone
            self.pad_id = bpe.vocab_size if pad_id is None else pad_id
            self.vocabulary = max(bpe.vocab_size, self.pad_id + 1)
        self._cached = lru_cache(maxsize=200_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return (self._bos, *self._words(text)[: self.context - 2], self._eos)

    def places(self, words: Sequence[str]) -> list[slice]:
        """Positions of every word's ids in the caption that the words make; an empty one where the context ends before.

        Raises:
            UserError: ids of the caption that are not those of its words, one after the other.
        """
        ids = [self._words(word) for word in words]
        if [number for of_word in ids for number in of_word] != self._words(" ".join(words)):
            raise UserError(
                f"The tokens of '{' '.join(words)}' do not fall into its words: write it without odd signs."
            )
        ends = [1, *(1 + end for end in accumulate(map(len, ids)))]
        return [slice(min(a, self.context - 1), min(b, self.context - 1)) for a, b in pairwise(ends)]

    def __call__(self, captions: Sequence[Sequence[str]], full_context: bool = False) -> Tokens:
        """Ids and masks BKL of K captions for each of B images; L is the longest caption, or the full context."""
        ids = [[self._cached(text) for text in texts] for texts in captions]
        longest = self.context if full_context else max(len(row) for rows in ids for row in rows)
        shape = (len(ids), len(ids[0]), longest)
        ids_BKL = torch.full(shape, self.pad_id, dtype=torch.long)
        mask_BKL = torch.zeros(shape, dtype=torch.bool)
        special_BKL = torch.zeros(shape, dtype=torch.bool)
        for b, rows in enumerate(ids):
            for k, row in enumerate(rows):
                ids_BKL[b, k, : len(row)] = torch.tensor(row)
                mask_BKL[b, k, 1 : len(row) - 1] = True
                special_BKL[b, k, 0] = special_BKL[b, k, len(row) - 1] = True
        return Tokens(ids_BKL, mask_BKL, special_BKL)


def _own_words(state: str) -> Fast:
    """The vocabulary of a checkpoint; raises UserError for one that `build_vocabulary` never wrote."""
    try:
        fast = Fast.from_str(state)
    except Exception as error:  # the library raises its base class alone
        raise UserError(f"The vocabulary of the checkpoint is damaged ({reason(error)}): copy it again.") from None
    if [fast.token_to_id(special) for special in ("<pad>", "<bos>", "<eos>")] != [0, 1, 2]:
        raise UserError("The vocabulary of the checkpoint lacks <pad>, <bos> and <eos>: copy it again.")
    if sorted(fast.get_vocab().values()) != list(range(fast.get_vocab_size())):
        raise UserError("The ids of the checkpoint's vocabulary are not 0, 1, 2 and so on, each once: copy it again.")
    fast.no_truncation()
    fast.no_padding()
    return fast


@cache
def _open_clip_words(clean: str) -> Any:  # noqa: ANN401 - open_clip has no types
    import open_clip

    return open_clip.SimpleTokenizer(clean=clean)


def build_vocabulary(captions: Iterable[str], size: int) -> str:
    """Lower-cased byte-pair vocabulary with byte fallback, as JSON: the `state` of a `Tokenizer`."""
    fast = Fast(models.BPE(byte_fallback=True, fuse_unk=False))
    fast.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    fast.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    fast.decoder = decoders.ByteFallback()
    special = ["<pad>", "<bos>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False, min_frequency=2)
    fast.train_from_iterator(captions, trainer)
    return str(fast.to_str())


def make_tokenizer(card: TextTowerTable, captions: Iterable[str]) -> Tokenizer:
    """Tokenizer of a recipe's table [text]; `captions`: its training captions."""
    if card.tokenizer == "open_clip":
        return Tokenizer(card.context)
    return Tokenizer(card.context, build_vocabulary(captions, card.vocabulary))
