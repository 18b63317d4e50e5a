"""What a run looks at while it trains: retrieval on val, and afterwards what the objective says on held-out pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sparc_bench.dataset import DataSplit
from sparc_bench.encoder import image_need, text_need
from sparc_bench.encoders.own import OwnEncoder
from sparc_bench.metrics.ranking import first_positives, hit_score
from sparc_bench.protocols._similarity_scores import similarity_scores
from sparc_bench.training.pixels import Pixels
from sparc_bench.two_towers.model import TwoTowerModel
from sparc_bench.two_towers.tokenizer import Tokenizer

HELD_OUT_IMAGES = 512
BATCH = 128


@torch.inference_mode()
def validation_scores(encoder: OwnEncoder, data: DataSplit, pixels: Pixels) -> dict[str, float]:
    """R@1, R@5 and R@10 both ways as hit rates, against the full truth where the data set has it."""
    examples = [data.examples[row] for row in pixels.index]
    readable = DataSplit(data.dataset, data.split, tuple(examples))
    truth_NM = data.caption_truth(examples) if data.caption_truth is not None else readable.own_truth()
    features = encoder.texts(readable.captions, text_need(encoder))
    blocks = []
    for start in range(0, len(pixels), BATCH):
        rows = range(start, min(start + BATCH, len(pixels)))
        images = encoder.encode_pixels(torch.from_numpy(pixels.rows(rows)), image_need(encoder))
        blocks.append(similarity_scores(encoder, images, features))
    image_to_text_NM, text_to_image_NM = (np.concatenate(ways) for ways in zip(*blocks, strict=True))
    scores: dict[str, float] = {}
    ways = {"image_to_text": (image_to_text_NM, truth_NM), "text_to_image": (text_to_image_NM.T, truth_NM.T)}
    for way, (scores_QC, truth_QC) in ways.items():
        first = first_positives(scores_QC, truth_QC)
        scores |= {f"{way}_r{k}": float(hit_score(first, k).mean()) for k in (1, 5, 10)}
    return scores


@torch.inference_mode()
def held_out(
    model: TwoTowerModel, tokenizer: Tokenizer, data: DataSplit, pixels: Pixels, device: torch.device
) -> dict[str, Any]:
    """The objective's own figures on up to 512 val pairs (one caption per image, in turn) and a grey image."""
    model.eval()
    batches = []
    for start in range(0, min(HELD_OUT_IMAGES, len(pixels)), BATCH):
        rows = range(start, min(start + BATCH, len(pixels), HELD_OUT_IMAGES))
        pixels_BHWC = torch.from_numpy(pixels.rows(rows)).to(device)
        grey_BHWC = torch.full_like(pixels_BHWC[:1], 128)
        examples = [data.examples[pixels.index[row]] for row in rows]
        texts = [[example.captions[row % len(example.captions)]] for row, example in zip(rows, examples, strict=True)]
        image, grey = model.encode_image(pixels_BHWC), model.encode_image(grey_BHWC)
        batches.append((image, grey, model.encode_text(tokenizer(texts, model.full_context).to(device))))
    return model.objective.held_out(batches)
