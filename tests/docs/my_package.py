"""Stands in the tests for the package of a reader with a model of their own: it knows colours, and no shape."""

import torch
from torch import nn
from torchvision.transforms.v2 import CenterCrop, Compose, PILToTensor, Resize

from sparc_bench.scenes.world import RGB

CELLS = 8
"""Rows and columns of the patch grid."""


class Colours(nn.Module):
    """Vectors with an entry for each colour: how near a patch's mean is to it, how often a text names it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("palette_C3", torch.tensor(list(RGB.values())) / 255)

    def encode_patches(self, pixels_B3HW):
        mean_BP3 = nn.functional.adaptive_avg_pool2d(pixels_B3HW / 255, CELLS).flatten(2).transpose(1, 2)
        return torch.softmax(-30 * torch.cdist(mean_BP3, self.palette_C3), dim=-1)

    def encode_image(self, pixels_B3HW):
        return self.encode_patches(pixels_B3HW).mean(dim=1)

    def encode_text(self, counts_BC):
        return counts_BC + 0.01


def tokenize(texts):
    return torch.tensor([[float(text.lower().split().count(colour)) for colour in RGB] for text in texts])


model = Colours()
preprocess = Compose([Resize(64), CenterCrop(64), PILToTensor()])
