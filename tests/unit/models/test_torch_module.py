import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import CenterCrop, Compose, PILToTensor, Resize, ToDtype

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import Runtime
from sparc_bench.errors import UserError
from sparc_bench.images.item import ImageItem
from sparc_bench.models.plugin_encoder import checked_encoder
from sparc_bench.models.torch_module import loader, weights_sha256

CARD = ModelCard(name="mine", title="mine", family="python", source="a test")
ALL = frozenset({"global", "patches"})
STEPS = (CenterCrop(16), PILToTensor(), ToDtype(torch.float32))


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image = nn.Parameter(torch.randn(3, 4, generator=generator))
        self.text = nn.Parameter(torch.randn(2, 4, generator=generator))
        self.register_buffer("steps", torch.tensor(3))

    def encode_patches(self, pixels):
        return nn.functional.avg_pool2d(pixels, 4).flatten(2).transpose(1, 2) @ self.image

    def encode_image(self, pixels):
        return self.encode_patches(pixels).mean(1)

    def encode_text(self, ids):
        return ids @ self.text


def preprocess(image):
    return Compose([Resize(16), *STEPS])(image)


def tokenize(texts):
    return torch.tensor([[float(len(text)), 1.0] for text in texts])


def gradient():
    image = Image.new("RGB", (64, 32))
    image.putdata([(4 * x, 8 * y, 0) for y in range(32) for x in range(64)])
    return image


def encoder(patches=True, **options):
    towers = Towers()
    chosen = towers.encode_patches if patches is True else patches
    load = loader(towers, preprocess, tokenize, patches=chosen, **options)
    return checked_encoder(load(CARD, None, Runtime()), "my_model.py", "0" * 64)


def test_vectors_are_the_modules_own():
    towers, own = Towers(), encoder()
    items = [ImageItem("a", gradient), ImageItem("b", gradient)]
    images, texts = own.images(items, ALL), own.texts(["one", "three"], ALL)
    pixels = torch.stack([preprocess(gradient())] * 2)
    assert torch.equal(images.global_ND, towers.encode_image(pixels))
    assert torch.equal(images.patches["local"], towers.encode_patches(pixels))
    assert torch.equal(texts.global_MD, towers.encode_text(tokenize(["one", "three"])))
    assert (images.grid, own.paths) == ((4, 4), {"local": True})
    assert not own.images(items, frozenset({"global"})).patches


@pytest.mark.parametrize(("shows", "area"), [("centre", (16.0, 0.0, 48.0, 32.0)), ("whole", (0.0, 0.0, 64.0, 32.0))])
def test_area_of_the_image_that_is_seen(shows, area):
    own = encoder(shows=shows)
    assert own.preprocess(ImageItem("a", gradient))[1] == area
    with pytest.raises(UserError, match="not of 32 px: leave the size out"):
        own.preprocess(ImageItem("a", gradient), 32)


def test_a_model_without_patches_says_so():
    own = encoder(patches=None)
    assert (own.gives, own.paths) == (frozenset({"image", "text", "global"}), {})
    assert not own.images([ImageItem("a", gradient)], ALL).patches


def test_patches_that_are_no_square_grid_are_refused():
    own = encoder(patches=lambda pixels: torch.ones(len(pixels), 17, 4))
    with pytest.raises(UserError, match="gives 17 patches, which are no square grid: leave out"):
        own.images([ImageItem("a", gradient)], ALL)


def test_a_module_without_the_two_methods_is_refused():
    with pytest.raises(UserError, match="Linear has no encode_image and no encode_text: add them"):
        loader(nn.Linear(2, 2), preprocess, tokenize)(CARD, None, Runtime())


def test_the_hash_is_of_names_and_values():
    first, same, moved = Towers(), Towers(), Towers()
    moved.steps += 1
    assert weights_sha256(first) == weights_sha256(same.to(torch.float64).to(torch.float32)) != weights_sha256(moved)
    assert encoder().weights_hash == weights_sha256(first)
    assert weights_sha256(first) != weights_sha256(nn.Sequential(first))
