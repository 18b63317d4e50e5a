"""Validation of a training run: retrieval R@k on val, and the figures of the objective on held-out pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from sparc_bench.dataset import Examples
from sparc_bench.encoders.own import OwnEncoder
from sparc_bench.features import ImageFeatures
from sparc_bench.images.view import View, in_batches
from sparc_bench.models.encoder_wrapper import EncoderWrapper
from sparc_bench.models.finite_encoder import FiniteEncoder
from sparc_bench.protocols.retrieval import hit_rates
from sparc_bench.training.loading import Prepared
from sparc_bench.two_towers.model import TwoTowerModel
from sparc_bench.two_towers.tokenizer import Tokenizer

HELD_OUT_IMAGES = 512
BATCH = 128
RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Scores:
    """Scores of a validation.

    Attributes:
        values: name -> score, a fraction or what the metric's unit says; those of a task are named TASK/METRIC.
        headlines: the names that are printed as the training goes.
    """

    values: Mapping[str, float]
    headlines: tuple[str, ...]


class PreparedEncoder(EncoderWrapper):
    """A model whose images are the pixels or features of a run: no image is opened again.

    Attributes:
        own: the model.
    """

    def __init__(self, own: OwnEncoder, data: Examples, images: Prepared) -> None:
        super().__init__(own)
        self.own, self._images = own, images
        self._position_of = {data.examples[row].image.id: position for position, row in enumerate(images.index)}

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Features of whole images at the model's own size, in batches of at most `BATCH`, in order."""
        for views in in_batches(groups, BATCH):
            inputs = self._images.rows([self._position_of[view.id] for view in views])
            features = self.own.encode_pixels(torch.from_numpy(inputs), need)
            yield replace(features, ids=tuple(view.id for view in views))


@torch.inference_mode()
def validation_scores(encoder: OwnEncoder, data: Examples, images: Prepared) -> dict[str, float]:
    """R@1, R@5 and R@10 both ways as the retrieval tasks have them, on the images that can be read."""
    readable = replace(data, examples=tuple(data.examples[row] for row in images.index))
    return hit_rates(FiniteEncoder(PreparedEncoder(encoder, data, images)), readable, RANKS)


@torch.inference_mode()
def held_out(
    model: TwoTowerModel, tokenizer: Tokenizer, data: Examples, images: Prepared, device: torch.device
) -> dict[str, Any]:
    """The objective's own figures on up to 512 val pairs (one caption per image, in turn) and a grey image."""
    model.eval()
    batches = []
    for start in range(0, min(HELD_OUT_IMAGES, len(images)), BATCH):
        rows = range(start, min(start + BATCH, len(images), HELD_OUT_IMAGES))
        inputs = torch.from_numpy(images.rows(rows)).to(device)
        grey_BHWC = torch.full((1, *images.transform.shape), 128, dtype=torch.uint8, device=device)
        examples = [data.examples[images.index[row]] for row in rows]
        texts = [[example.captions[row % len(example.captions)]] for row, example in zip(rows, examples, strict=True)]
        image, grey = model.encode_image(inputs), model.encode_image(grey_BHWC)
        batches.append((image, grey, model.encode_text(tokenizer(texts, model.full_context).to(device))))
    return model.objective.held_out(batches)
