from functools import partial

import open_clip
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import CenterCrop, Compose, PILToTensor, Resize, ToDtype

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import Runtime
from sparc_bench.errors import UserError
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from sparc_bench.models.plugin_encoder import checked_encoder
from sparc_bench.models.torch_module import UNSEEN, loader, weights_sha256, wrap
from tests.toys import tiny_open_clip

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
    items = [View(ImageItem("a", gradient)), View(ImageItem("b", gradient))]
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
    assert own.preprocess(View(ImageItem("a", gradient)))[1] == area
    with pytest.raises(UserError, match="not of 32 x 48 px: leave the size out"):
        own.preprocess(View(ImageItem("a", gradient), rows=32, columns=48))


def test_a_model_without_patches_says_so():
    own = encoder(patches=None)
    assert (own.gives, own.paths) == (frozenset({"image", "text", "global"}), {})
    assert not own.images([View(ImageItem("a", gradient))], ALL).patches


def test_patches_that_are_no_square_grid_are_refused():
    own = encoder(patches=lambda pixels: torch.ones(len(pixels), 17, 4))
    with pytest.raises(UserError, match="gives 17 patches, which are no square grid: leave out"):
        own.images([View(ImageItem("a", gradient))], ALL)


def test_a_module_without_the_two_methods_is_refused():
    with pytest.raises(UserError, match="Linear has no encode_image and no encode_text: add them"):
        loader(nn.Linear(2, 2), preprocess, tokenize)(CARD, None, Runtime())


def test_the_hash_is_of_names_and_values():
    first, same, moved = Towers(), Towers(), Towers()
    moved.steps += 1
    assert weights_sha256(first) == weights_sha256(same.to(torch.float64).to(torch.float32)) != weights_sha256(moved)
    assert encoder().weights_hash == weights_sha256(first)
    assert weights_sha256(first) != weights_sha256(nn.Sequential(first))


class Strings:
    """No torch module: it has one, and reads strings."""

    def __init__(self):
        self.towers = Towers()

    def encode_image(self, pixels):
        return self.towers.encode_image(pixels)

    def encode_text(self, texts):
        return self.towers.encode_text(tokenize(texts))


def test_a_model_in_memory_is_the_encoder_of_a_file():
    towers, item = Towers(), View(ImageItem("a", gradient))
    mine, file = wrap(towers, preprocess, tokenize, towers.encode_patches, title="Mine"), encoder()
    assert (mine.card.name, mine.card.title, mine.weights_hash) == ("Towers", "Mine", file.weights_hash)
    assert torch.equal(mine.images([item], ALL).patches["local"], file.images([item], ALL).patches["local"])
    assert torch.equal(mine.texts(["one"], ALL).global_MD, file.texts(["one"], ALL).global_MD)


def test_an_object_needs_two_methods_and_a_preprocess_alone():
    mine, module = wrap(Strings(), preprocess), wrap(Towers(), preprocess, tokenize)
    assert torch.equal(mine.texts(["one"], ALL).global_MD, module.texts(["one"], ALL).global_MD)
    strings = Strings()
    assert weights_sha256(strings) == weights_sha256(Strings()) != weights_sha256(object()) == UNSEEN
    strings.towers.steps += 1
    assert weights_sha256(strings) != mine.weights_hash


def test_a_model_is_read_in_evaluation_mode_and_left_as_it_was():
    class Noisy(Towers):
        def __init__(self):
            super().__init__()
            self.dropout, self.frozen = nn.Dropout(0.5), nn.Dropout(0.5).eval()

        def encode_image(self, pixels):
            return self.dropout(super().encode_image(pixels))

    noisy = Noisy()
    mine = wrap(noisy, preprocess, tokenize)
    assert torch.equal(
        mine.images([View(ImageItem("a", gradient))], ALL).global_ND,
        encoder().images([View(ImageItem("a", gradient))], ALL).global_ND,
    )
    assert (noisy.training, noisy.dropout.training, noisy.frozen.training) == (True, True, False)


def test_another_runtime_hashes_the_weights_again():
    towers = Towers()
    mine = wrap(towers, preprocess, tokenize)
    towers.steps += 1
    other = mine.at(Runtime(precision="bf16", batch_size=3))
    assert (other.precision, other.runtime.batch_size, other.card) == ("bf16", 3, mine.card)
    assert other.weights_hash == weights_sha256(towers) != mine.weights_hash


@pytest.mark.parametrize(
    ("image", "text", "sentence"),
    [
        (lambda pixels: (pixels,), tokenize, r"encode_image of M gives a tuple: return a dense, real tensor of shape"),
        (lambda pixels: pixels, tokenize, r"encode_image of M gives a tensor of shape \(1, 3, 16, 16\): return"),
        (lambda _: None, tokenize, r"encode_image of M gives a NoneType: return a dense, real tensor of shape"),
        (lambda _: torch.ones(1, 4).to_sparse(), tokenize, r"gives a sparse_coo tensor of shape \(1, 4\)"),
        (lambda _: torch.ones(1, 4) * 1j, tokenize, r"gives a complex64 tensor of shape \(1, 4\)"),
        (lambda _: torch.ones(1, 4, device="meta"), tokenize, r"gives a meta tensor of shape \(1, 4\)"),
        (lambda _: torch.ones(1, 0), tokenize, r"gives a tensor of shape \(1, 0\)"),
        (Towers().encode_image, lambda _: torch.ones(3, 4), r"encode_text of M gives a tensor of shape \(3, 4\)"),
    ],
)
def test_vectors_of_another_shape_are_refused(image, text, sentence):
    model = type("M", (), {"encode_image": staticmethod(image), "encode_text": staticmethod(text)})()
    mine = wrap(model, preprocess)
    with pytest.raises(UserError, match=sentence):
        (mine.images([View(ImageItem("a", gradient))], ALL), mine.texts(["one"], ALL))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "scenes_clip"}, "'scenes_clip' is the name of a model card"),
        ({"name": "../out"}, "The name '../out' cannot name a folder"),
        ({"trained_on": ["coco"]}, "trained_on 'coco' names no split: write DATASET:SPLIT"),
    ],
)
def test_names_that_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        wrap(Towers(), preprocess, tokenize, **options)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"model": Towers}, r"Towers is a class, not a model: give an object of it, such as Towers\(\)"),
        ({"preprocess": 3}, "preprocess is of type int: give a function"),
        ({"shows": "all"}, "shows is 'all', .* choose one of centre, whole"),
        ({"preprocess": lambda image: image}, "gives an object of type Image for the image a: let it"),
        ({"preprocess": lambda image: {"pixel_values": preprocess(image)}}, "of type dict for the image a: let it"),
        ({"preprocess": lambda image: torch.ones(3, image.width, 4)}, r"\(3, 64, 4\) for one image and \(3, 9, 4"),
        ({"tokenizer": lambda texts: {"input_ids": tokenize(texts)}}, 'gives a dict: return a tensor, .*"input_ids"'),
        ({"tokenizer": lambda _: [[1, 2]]}, "gives a list: return a tensor"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changed, sentence):
    views = [View(ImageItem("a", gradient)), View(ImageItem("b", partial(Image.new, "RGB", (9, 9))))]

    def encoded():
        mine = wrap(**{"model": Towers(), "preprocess": preprocess, "tokenizer": tokenize, **changed})
        mine.images(views, ALL)
        mine.texts(["one"], ALL)

    with pytest.raises(UserError, match=sentence):
        encoded()


def test_images_and_texts_of_different_widths_are_refused():
    towers = Towers()
    towers.text = nn.Parameter(torch.ones(2, 5))
    mine = wrap(towers, preprocess, tokenize, patches=towers.encode_patches)
    images, texts = mine.images([View(ImageItem("a", gradient))], ALL), mine.texts(["one"], ALL)
    for scored in (mine.similarity, mine.dense_scores):
        with pytest.raises(UserError, match="images have 4 numbers and vectors of texts 5: let the model project both"):
            scored(images, texts)


@pytest.mark.slow
def test_a_model_of_open_clip_as_it_comes(tmp_path):
    folder = tiny_open_clip.folder(tmp_path, "vit")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    mine = wrap(model, transform, open_clip.get_tokenizer(f"local-dir:{folder}"))
    own = tiny_open_clip.encoder(folder)
    items, words = [View(ImageItem("a", gradient))], ["a cat", "two Dogs"]
    assert torch.allclose(
        mine.images(items, ALL).global_ND, own.images(items, frozenset({"global"})).global_ND, atol=1e-5
    )
    assert torch.allclose(
        mine.texts(words, ALL).global_MD, own.texts(words, frozenset({"global"})).global_MD, atol=1e-5
    )
    assert mine.preprocess(items[0])[1] == own.preprocess(items[0])[1]
