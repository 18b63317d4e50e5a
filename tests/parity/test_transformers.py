"""Small random checkpoints give the vectors that transformers itself gives, and none depends on batch or workers."""

from functools import cache, partial

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from sparc_bench.cards.model_card import ModelCard  # noqa: E402
from sparc_bench.encoder import Runtime  # noqa: E402
from sparc_bench.encoders.transformers import load  # noqa: E402
from sparc_bench.images.item import ImageItem  # noqa: E402
from sparc_bench.images.view import View  # noqa: E402
from tests.toys.tiny_transformers import CONTEXT, KINDS, TEXTS, Folders, photos  # noqa: E402
from tests.toys.views import sized  # noqa: E402

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
CLIPS = ("clip", "chinese_clip", "altclip", "metaclip_2")
SIGLIPS = ("siglip", "siglip2_fixed", "siglip2_naflex")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return Folders(tmp_path_factory.mktemp("checkpoints"))


@cache
def encoder(folder, batch_size=3, workers=0, **options):
    card = ModelCard(name=folder.name, title="tiny", family="transformers", source="test", options=options)
    return load(card, folder, Runtime(batch_size=batch_size, workers=workers))


def items(images):
    return [View(ImageItem(str(index), partial(_same, image))) for index, image in enumerate(images)]


def _same(image):
    return image


@cache
def library(folder):
    return transformers.AutoModel.from_pretrained(folder, torch_dtype=torch.float32).eval()


def vectors(output):
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def library_images(folder, **settings):
    model, processor = library(folder), transformers.AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=photos(), return_tensors="pt", **settings)
    interpolate = {"interpolate_pos_encoding": True} if settings else {}
    with torch.inference_mode():
        return vectors(model.get_image_features(**inputs, **interpolate)), inputs["pixel_values"]


def library_texts(folder, texts, padding):
    model, tokenizer = library(folder), transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, padding=padding, truncation=True, max_length=CONTEXT, return_tensors="pt")
    with torch.inference_mode():
        return vectors(model.get_text_features(**inputs))


def apart(vectors_NM):
    """The smallest distance of any two rows: what is equal to 1e-5 must be able to differ by more."""
    return torch.pdist(vectors_NM).min()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_image_vectors_and_pixels_are_the_librarys(folders, kind):
    expected, pixels = library_images(folders(kind))
    tested = encoder(folders(kind))
    torch.testing.assert_close(tested.images(items(photos()), frozenset({"global"})).global_ND, expected, **CLOSE)
    ours = torch.stack([tested.preprocess(item)[0] for item in items(photos())])
    assert torch.equal(ours[..., :-3] if kind == "siglip2_naflex" else ours, pixels)
    assert apart(expected) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in SIGLIPS])
@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_text_vectors_are_the_librarys_however_it_pads(folders, kind, padding):
    expected = library_texts(folders(kind), TEXTS, padding)
    found = encoder(folders(kind)).texts(TEXTS, frozenset({"global"})).global_MD
    torch.testing.assert_close(found, expected, **CLOSE)
    assert apart(expected[[0, 2, 3, 4, 5]]) > 1e-2


@pytest.mark.parametrize("kind", SIGLIPS)
def test_siglip_texts_are_padded_to_the_context(folders, kind):
    texts = [text.lower() for text in TEXTS] if kind == "siglip2_fixed" else TEXTS
    expected = library_texts(folders(kind), texts, "max_length")
    found = encoder(folders(kind)).texts(TEXTS, frozenset({"global"})).global_MD
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (found[2:] - library_texts(folders(kind), texts[2:], "longest")).abs().max() < 1e-5  # one fills it
    assert (found[5:] - library_texts(folders(kind), texts[5:], "longest")).abs().max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_batch_order_and_workers_change_no_vector(folders, kind):
    images = items(photos(40))
    need = frozenset({"global", "patches"})
    workers = 2 if kind in ("clip", "siglip", "siglip2_naflex") else 0
    alone, together = encoder(folders(kind), batch_size=1), encoder(folders(kind), batch_size=7, workers=workers)
    first, second = alone.images(images, need), together.images(images[::-1], need)
    torch.testing.assert_close(first.global_ND, second.global_ND.flip(0), **CLOSE)
    for path in first.patches:
        torch.testing.assert_close(first.patches[path], second.patches[path].flip(0), **CLOSE)
    torch.testing.assert_close(first.area_N4, second.area_N4.flip(0), **CLOSE)
    need = frozenset({"global", "tokens"} & alone.gives)
    one = [alone.texts([text], need) for text in TEXTS]
    all_ = together.texts(TEXTS, need)
    torch.testing.assert_close(torch.cat([each.global_MD for each in one]), all_.global_MD, **CLOSE)
    for row, each in enumerate(one):
        if each.mask_ML is not None:
            words = each.tokens_MLD[0][each.mask_ML[0]]
            torch.testing.assert_close(words, all_.tokens_MLD[row][all_.mask_ML[row]], **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(24, 64), (64, 16)])
@pytest.mark.parametrize("kind", [*CLIPS, "siglip"])
def test_position_embeddings_of_a_grid_that_is_no_square(folders, kind, rows, columns):
    """The same pixels through the library's own call; a centre crop is cut from an image that covers it."""
    tested, views = encoder(folders(kind), patches="value"), sized(items(photos()), rows, columns)
    pixels = torch.stack([tested.preprocess(view)[0] for view in views])
    assert pixels.shape[-2:] == (rows, columns)
    assert (pixels[:, :, 0] != pixels[:, :, -1]).any()  # no rows of padding
    with torch.inference_mode():
        expected = vectors(library(folders(kind)).get_image_features(pixels, interpolate_pos_encoding=True))
    found = tested.images(views, frozenset({"global", "patches"}))
    torch.testing.assert_close(found.global_ND, expected, **CLOSE)
    assert found.grid == (rows // 8, columns // 8)
    assert found.patches["value"].shape[1] == rows * columns // 64


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*CLIPS, "siglip"])
def test_position_embeddings_are_interpolated_by_the_library(folders, kind):
    size = {"size": {"height": 48, "width": 48}}
    if kind in ("clip", "altclip", "metaclip_2"):
        size = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}
    expected, _ = library_images(folders(kind), **size)
    need = frozenset({"global", "patches"})
    tested = encoder(folders(kind), patches="value")
    found = tested.images(sized(items(photos()), 48), need)
    torch.testing.assert_close(found.global_ND, expected, **CLOSE)
    assert found.grid == (6, 6)
    assert found.patches["value"].shape[1] == 36
    own = tested.images(items(photos()), need)
    assert (own.global_ND - expected).abs().max() > 1e-2


@pytest.mark.parametrize("kind", CLIPS)
def test_last_patches_are_the_last_hidden_states_projected_as_the_class_token(folders, kind):
    model = library(folders(kind))
    found = encoder(folders(kind)).images(items(photos()), frozenset({"patches", "global"}))
    with torch.inference_mode():
        _, pixels = library_images(folders(kind))
        hidden = model.vision_model(pixel_values=pixels).last_hidden_state
        projected = model.visual_projection(model.vision_model.post_layernorm(hidden))
    torch.testing.assert_close(found.patches["last"], projected[:, 1:], **CLOSE)
    torch.testing.assert_close(found.global_ND, projected[:, 0], **CLOSE)
    assert found.grid == (4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("way", ["value", "sclip", "clearclip"])
def test_ways_change_the_attention_of_the_last_layer_alone(folders, kind, way):
    model = library(folders(kind))
    tower, layer = model.vision_model, model.vision_model.encoder.layers[-1]
    attention = layer.self_attn
    with torch.inference_mode():
        _, pixels = library_images(folders(kind))
        x_BTW = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        normed = layer.layer_norm1(x_BTW)
        q, k, v = (getattr(attention, f"{each}_proj")(normed).unflatten(-1, (4, 8)) for each in "qkv")

        def weights(a, b):
            return torch.einsum("bihe,bjhe->bhij", a, b).div(8**0.5).softmax(-1)

        mixed = {"value": torch.eye(x_BTW.shape[1]).expand(5, 4, -1, -1), "sclip": weights(q, q) + weights(k, k)}
        attended = torch.einsum("bhij,bjhe->bihe", mixed.get(way, weights(q, q)), v).flatten(2)
        y_BTW = attention.out_proj(attended)
        if way != "clearclip":
            y_BTW = x_BTW + y_BTW
            y_BTW = y_BTW + layer.mlp(layer.layer_norm2(y_BTW))
        expected = model.visual_projection(tower.post_layernorm(y_BTW[:, 1:]))
    tested = encoder(folders(kind), patches=way)
    found = tested.images(items(photos()), frozenset({"patches"}))
    torch.testing.assert_close(found.patches[way], expected, **CLOSE)
    assert tested.paths == {way: False}
    assert found.global_ND is None


@pytest.mark.parametrize("kind", ["siglip", "siglip2_fixed"])
def test_siglip_patches_are_each_pooled_alone(folders, kind):
    model = library(folders(kind))
    with torch.inference_mode():
        _, pixels = library_images(folders(kind))
        hidden = model.vision_model(pixel_values=pixels).last_hidden_state
        expected = torch.stack([model.vision_model.head(hidden[:, patch : patch + 1]) for patch in range(16)], dim=1)
    assert encoder(folders(kind)).paths == {}
    found = encoder(folders(kind), patches="value").images(items(photos()), frozenset({"patches"}))
    torch.testing.assert_close(found.patches["value"], expected, **CLOSE)


@pytest.mark.parametrize("kind", [*CLIPS, *SIGLIPS])
def test_tokens_are_the_last_hidden_states_projected_as_the_pooled_one(folders, kind):
    """The pooled token is not among the words, so it is found by its place: the first, the EOS, the last."""
    tested = encoder(folders(kind))
    found = tested.texts(TEXTS, frozenset({"global", "tokens"}))
    pooled = {"chinese_clip": "first", "altclip": "first"}.get(kind, "last" if kind in SIGLIPS else "eos")
    lengths = found.mask_ML.sum(1)
    place = {"first": torch.zeros_like(lengths), "last": torch.full_like(lengths, CONTEXT - 1), "eos": lengths + 1}
    rows = found.tokens_MLD[torch.arange(len(TEXTS)), place[pooled]]
    torch.testing.assert_close(rows, found.global_MD, **CLOSE)


@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "siglip", "siglip2_fixed"])
def test_words_are_neither_padding_nor_special(folders, kind):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders(kind))
    found = encoder(folders(kind)).texts(["a cat", "", "zebra " * 30], frozenset({"tokens"}))
    special = 1 if "siglip" in kind else 2
    expected = [len(tokenizer("a cat").input_ids) - special, 0, CONTEXT - special]
    assert found.mask_ML.sum(1).tolist() == expected
    first = 0 if special == 1 else 1
    assert found.mask_ML[0, first : first + expected[0]].all()
