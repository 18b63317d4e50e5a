"""A small encoder that passes every check, with an option for each mistake that the pre-flight has to find."""

import re
import zlib
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from torchvision.transforms.functional import pil_to_tensor

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import ImageTextEncoder, Runtime
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.view import View

SIZE, GRID, WIDTH, CONTEXT = 48, 6, 32, 24
CARD = ModelCard(name="toy", title="a toy", family="toy", source="test")


def opened(view):
    if view.size is not None:
        raise UserError("A toy has one size.")
    return view.open()


def squash(view):
    image = opened(view)
    pixels = pil_to_tensor(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) / 127.5 - 1
    return pixels, view.in_original((0.0, 0.0, *map(float, image.size)))


def squash_whole(view):
    """A window's pixels as they should be, but not its place."""
    return squash(view)[0], (0.0, 0.0, *map(float, view.open().size))


def without_windows(view):
    return squash(View(view.item, None, view.rows, view.columns))


def of_one_size(view):
    return squash(View(view.item, view.window))


def centre_crop(view, claim_all=False):
    image = opened(view)
    (width, height), side = image.size, min(image.size)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    pixels = pil_to_tensor(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)) / 127.5 - 1
    return pixels, view.in_original((0.0, 0.0, float(width), float(height)) if claim_all else box)


def letterbox(view):
    image = opened(view)
    (width, height), side = image.size, max(image.size)
    inner = round(SIZE * width / side), round(SIZE * height / side)
    canvas = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
    left, top = (SIZE - inner[0]) // 2, (SIZE - inner[1]) // 2
    canvas.paste(image.resize((max(1, inner[0]), max(1, inner[1])), Image.Resampling.BICUBIC), (left, top))
    scale = side / SIZE
    area = (-left * scale, -top * scale, (SIZE - left) * scale, (SIZE - top) * scale)
    return pil_to_tensor(canvas) / 127.5 - 1, view.in_original(area)


def changed(view, change=None):
    """Pixels of `squash` after a mistake."""
    pixels, area = squash(view)
    return change(pixels), area


def without_antialias(view):
    image = opened(view)
    pixels = pil_to_tensor(image)[None].float()
    area = view.in_original((0.0, 0.0, *map(float, image.size)))
    return F.interpolate(pixels, size=(SIZE, SIZE), mode="bilinear")[0] / 127.5 - 1, area


def jitter(pixels):
    return pixels + 0.01 * torch.rand(())


def preprocess_after(change):
    return partial(changed, change=change)


class Toy(ImageTextEncoder):
    """Patches are projected pixels, an image is their mean; a text is the mean of its words' random vectors."""

    gives = frozenset({"image", "text", "global", "patches", "tokens"})
    paths = {"plain": True}  # noqa: RUF012 - as the seam has it

    def __init__(self, preprocess=squash, card=CARD, precision="float32", logit_scale=100.0):
        super().__init__(card, Runtime(precision=precision), preprocess, "0" * 64)
        generator = torch.Generator().manual_seed(0)
        cell = SIZE // GRID
        self.kernel = torch.randn(WIDTH, 3, cell, cell, generator=generator) / cell
        self.mixing = torch.randn(WIDTH, WIDTH, generator=generator) / WIDTH**0.5
        self.places = 1 + 0.3 * torch.randn(GRID * GRID, WIDTH, generator=generator)
        self.positions = 1 + 0.3 * torch.randn(CONTEXT, WIDTH, generator=generator)
        self.logit_scale = logit_scale

    def patches(self, pixels):
        """BPD, row by row."""
        cells_BDHW = F.conv2d(pixels.float(), self.kernel, stride=SIZE // GRID)
        return (cells_BDHW.flatten(2).transpose(1, 2) * self.places).tanh() @ self.mixing + 0.1

    def encode_pixels(self, pixels, need):
        patches_BPD = self.patches(pixels)
        patches = {"plain": patches_BPD} if "patches" in need else {}
        return ImageFeatures((), patches_BPD.mean(1), None, patches, (GRID, GRID))

    def words(self, text):
        return (["<start>", *re.findall(r"[^\W_]+|[^\w\s]", text.lower())])[:CONTEXT]

    def word_vectors(self, words):
        seeds = [zlib.crc32(word.encode()) for word in words]
        vectors = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(vectors) * self.positions[: len(words)]

    def encode_texts(self, texts, need):
        tokens = [self.word_vectors(self.words(text)) for text in texts]
        tokens_MLD = pad_sequence(tokens, batch_first=True)
        mask_ML = torch.arange(tokens_MLD.shape[1]) < torch.tensor([len(each) for each in tokens])[:, None]
        return TextFeatures(
            tuple(texts), self.pool(tokens_MLD, mask_ML), *((tokens_MLD, mask_ML) if "tokens" in need else ())
        )

    def pool(self, tokens_MLD, mask_ML):
        return (tokens_MLD * mask_ML[..., None]).sum(1) / mask_ML.sum(1, keepdim=True)
