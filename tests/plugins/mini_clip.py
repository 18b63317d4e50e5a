"""An encoder family in one file: a CLIP of coloured shapes, whose tokenizer lies in its checkpoint."""

import re
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from sparc_bench.encoder import ImageTextEncoder
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.weights.weights_file import file_sha256, load_into, read_tensors


def towers(words, longest):
    blocks = [(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise((3, 32, 64, 128, 256))]
    parts = [part for block in blocks for part in block]
    layer = nn.TransformerEncoderLayer(128, 4, 256, activation="gelu", batch_first=True)
    model, image, text = nn.Module(), nn.Sequential(), nn.Module()
    model.logit_scale, model.image_encoder, model.text_encoder = nn.Parameter(torch.zeros(())), image, text
    image.features, image.proj = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(256, 256)
    text.token_emb, text.pos_emb = nn.Embedding(words, 128, padding_idx=0), nn.Parameter(torch.zeros(1, longest, 128))
    text.transformer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    text.ln, text.proj = nn.LayerNorm(128), nn.Linear(128, 256)
    return model


def pixels(view):
    image = view.open()
    squashed = pil_to_tensor(image.resize((view.columns or 64, view.rows or 64), Image.Resampling.BILINEAR))
    return squashed / 127.5 - 1, view.in_original((0.0, 0.0, *map(float, image.size)))


class MiniClip(ImageTextEncoder):
    def __init__(self, card, weights, runtime):
        weights = weights or Path(card.options["weights"])
        tensors = read_tensors(weights)
        super().__init__(card, runtime, pixels, file_sha256(weights), identity={"pixels": "64, squashed, bilinear"})
        tokenizer = torch.load(weights, weights_only=True)["tokenizer"]
        self.place, self.longest = tokenizer["stoi"], tokenizer["max_len"]
        self.model = towers(len(self.place), self.longest).to(self.device).eval()
        load_into(self.model, tensors, weights)

    def encode_pixels(self, pixels, need):  # noqa: ARG002 - there is but one thing to give
        return ImageFeatures((), self.model.image_encoder(pixels))

    def encode_texts(self, texts, need):  # noqa: ARG002
        words = [["<bos>", *re.findall("[a-z0-9]+", text.lower())[: self.longest - 2], "<eos>"] for text in texts]
        ids = [[self.place.get(word, self.place["<unk>"]) for word in each] for each in words]
        ids_ML = torch.tensor([[*each, *[0] * (self.longest - len(each))] for each in ids], device=self.device)
        real_ML, tower = ids_ML != 0, self.model.text_encoder
        tokens_MLD = tower.ln(tower.transformer(tower.token_emb(ids_ML) + tower.pos_emb, src_key_padding_mask=~real_ML))
        mean_MD = (tokens_MLD * real_ML[..., None]).sum(1) / real_ML.sum(1, keepdim=True)
        return TextFeatures(tuple(texts), tower.proj(mean_MD))


load = MiniClip
