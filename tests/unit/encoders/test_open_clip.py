import json
import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparc_bench.encoder import Runtime
from sparc_bench.encoders.open_clip import OpenClipEncoder
from sparc_bench.errors import UserError
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from sparc_bench.two_towers.open_clip_preprocess import OpenClipPreprocess
from sparc_bench.weights import open_clip_source
from sparc_bench.weights.open_clip_model import fitting_architectures, is_openai
from sparc_bench.weights.open_clip_source import Options, find
from tests.toys.tiny_open_clip import TEXTS, encoder, folder, items
from tests.toys.views import sized

PATCHES, GLOBAL, TOKENS = frozenset({"patches"}), frozenset({"global"}), frozenset({"tokens"})
WEIGHTS = "open_clip_model.safetensors"


def close(found: Tensor, expected: Tensor, within: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, atol=within, rtol=1e-5)


def model_and_pixels(saved: Path) -> tuple[Any, Tensor]:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{saved}", pretrained_text=False)
    return model.eval(), torch.stack([transform(item.open()) for item in items()])


# --- patches


def heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def attended(way: str, q: Tensor, k: Tensor, v: Tensor, count: int) -> Tensor:
    """Written from the formulas, with the matrices of weights whole."""
    q, k, v = heads(q, count), heads(k, count), heads(v, count)

    def weights(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / math.sqrt(a.shape[-1])).softmax(dim=-1)

    matrix = {
        "last": lambda: weights(q, k),
        "value": lambda: torch.eye(q.shape[2]),
        "sclip": lambda: weights(q, q) + weights(k, k),
        "clearclip": lambda: weights(q, q),
    }[way]()
    return (matrix @ v).transpose(1, 2).flatten(2)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("way", ["last", "value", "sclip", "clearclip"])
@pytest.mark.parametrize("kind", ["vit_quickgelu", "vit_average"])
def test_ways_of_a_vision_transformer(kind, way, tmp_path):
    model, pixels = model_and_pixels(folder(tmp_path, kind))
    visual = model.visual
    x = visual._embeds(pixels)
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    block = visual.transformer.resblocks[-1]
    q, k, v = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
    added = block.ls_1(block.attn.out_proj(attended(way, q, k, v, block.attn.num_heads)))
    if way == "clearclip":
        y = added
    else:
        y = x + added
        y = y + block.ls_2(block.mlp(block.ln_2(y)))
    ours = encoder(tmp_path, patches=way)
    found = ours.images(items(), PATCHES)
    close(found.patches[way], visual.ln_post(y)[:, 1:] @ visual.proj)
    assert (found.grid, dict(ours.paths)) == ((4, 4), {way: False})
    assert found.global_ND is None
    close(ours.images(items(), PATCHES | GLOBAL).patches[way], found.patches[way])


def test_patches_of_an_average_pooled_tower_average_to_its_global_vector(tmp_path):
    found = encoder(folder(tmp_path, "vit_average")).images(items(), PATCHES | GLOBAL)
    close(found.patches["last"].mean(dim=1), found.global_ND)


@pytest.mark.slow
@torch.no_grad()
def test_value_path_of_a_resnet(tmp_path):
    model, pixels = model_and_pixels(folder(tmp_path, "resnet"))
    visual = model.visual
    x = visual.stem(pixels)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    pool = visual.attnpool
    expected = torch.stack(
        [pool.c_proj(pool.v_proj(x[:, :, row, column])) for row in range(2) for column in range(2)], dim=1
    )
    found = encoder(tmp_path, patches="value").images(items(), PATCHES | GLOBAL)
    close(found.patches["value"], expected)
    assert found.grid == (2, 2)
    assert encoder(tmp_path, patches="value").images(sized(items(), 96), PATCHES).grid == (3, 3)
    with pytest.raises(UserError, match="64 px only: leave the size out"):
        encoder(tmp_path, patches="value").images(sized(items(), 96), GLOBAL)


@torch.no_grad()
def test_value_path_of_coca_is_its_pool_seeing_one_patch(tmp_path):
    model, pixels = model_and_pixels(folder(tmp_path, "coca"))
    visual = model.visual
    x = visual.transformer(visual._embeds(pixels))
    columns = []
    for patch in range(1, 17):  # as if nothing but this patch could be attended to
        alone = visual.ln_post(visual.attn_pool(x[:, patch : patch + 1]))
        columns.append(alone[:, 0] @ visual.proj)
    found = encoder(tmp_path, patches="value").images(items(), PATCHES)
    close(found.patches["value"], torch.stack(columns, dim=1))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "way"),
    [
        *(("token_timm", way) for way in ("last", "value", "sclip", "clearclip")),
        ("average_timm", "last"),
        ("average_timm", "value"),
        ("classless_timm", "last"),
        ("classless_timm", "sclip"),
    ],
)
def test_ways_of_timms_vision_transformer(kind, way, tmp_path):
    model, pixels = model_and_pixels(folder(tmp_path, kind))
    trunk = model.visual.trunk
    x = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(pixels)))
    for block in trunk.blocks[:-1]:
        x = block(x)
    block = trunk.blocks[-1]
    q, k, v = block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
    added = block.ls1(block.attn.proj(attended(way, q, k, v, block.attn.num_heads)))
    if way == "clearclip":
        y = added
    else:
        y = x + added
        y = y + block.ls2(block.mlp(block.norm2(y)))
    expected = model.visual.head(trunk.head(trunk.fc_norm(trunk.norm(y)[:, trunk.num_prefix_tokens :])))
    found = encoder(tmp_path, patches=way).images(items(), PATCHES | GLOBAL)
    close(found.patches[way], expected)
    close(found.global_ND, model.encode_image(pixels))


@pytest.mark.slow
@torch.no_grad()
def test_value_path_of_siglips_pool(tmp_path):
    model, pixels = model_and_pixels(folder(tmp_path, "map_timm"))
    trunk = model.visual.trunk
    pool = trunk.attn_pool
    width = trunk.num_features
    features = trunk.forward_features(pixels)[:, trunk.num_prefix_tokens :]
    alone = pool.proj(F.linear(features, pool.kv.weight[width:], pool.kv.bias[width:]))
    found = encoder(tmp_path, patches="value").images(items(), PATCHES)
    close(found.patches["value"], alone + pool.mlp(pool.norm(alone)))


@torch.no_grad()
def test_patches_of_a_convolutional_trunk_go_through_its_head_one_by_one(tmp_path):
    model, pixels = model_and_pixels(folder(tmp_path, "convnext_timm"))
    visual = model.visual
    features = visual.trunk.forward_features(pixels)
    rows, columns = features.shape[2:]
    expected = torch.stack(
        [
            visual.head(visual.trunk.head(features[:, :, row : row + 1, column : column + 1]))
            for row in range(rows)
            for column in range(columns)
        ],
        dim=1,
    )
    found = encoder(tmp_path).images(items(), PATCHES)
    close(found.patches["last"], expected)
    assert found.grid == (rows, columns) == (3, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "ways"),
    [
        ("vit", "last, value, sclip, clearclip"),
        ("resnet", "value"),
        ("coca", "value"),
        ("map_timm", "value"),
        ("convnext_timm", "last"),
    ],
)
def test_only_named_ways_are_applied(kind, ways, tmp_path):
    plain = encoder(folder(tmp_path, kind))
    assert dict(plain.paths) == ({"last": False} if "last" in ways else {})
    assert ("patches" in plain.gives) == ("last" in ways)
    missing = next((way for way in ("last", "sclip") if way not in ways), None)
    if missing:
        with pytest.raises(UserError, match=rf'no patches = "{missing}" in the joint space: write one of {ways}\.'):
            encoder(tmp_path, patches=missing)


# --- texts


@pytest.mark.parametrize("kind", ["vit", "vit_quickgelu", "coca", "token_timm", "siglip_timm"])
def test_leaving_padding_out_moves_no_vector(kind, tmp_path):
    ours = encoder(folder(tmp_path, kind))
    short = TEXTS[:4]
    fast = ours.texts(short, GLOBAL | TOKENS)
    ours._texts.trims, before = False, ours._texts.trims
    plain = ours.texts(short, GLOBAL | TOKENS)
    assert before == (kind not in ("coca", "siglip_timm"))
    close(fast.global_MD, plain.global_MD)
    length = fast.tokens_MLD.shape[1]
    assert (length < plain.tokens_MLD.shape[1]) == before
    close(fast.tokens_MLD, plain.tokens_MLD[:, :length])
    assert torch.equal(fast.mask_ML, plain.mask_ML[:, :length])


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", ["vit", "coca", "map_timm"])
def test_tokens_are_normed_and_projected_like_the_text_vector(kind, tmp_path):
    model, _ = model_and_pixels(folder(tmp_path, kind))
    found = encoder(tmp_path).texts(TEXTS, GLOBAL | TOKENS)
    ids = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(list(TEXTS))
    ends = ids.argmax(dim=1)
    assert found.mask_ML.sum(dim=1).tolist() == (ends - 1).tolist()
    assert found.mask_ML[3].tolist()[:3] == [False, True, False]  # "!" has the id of the padding
    if kind == "vit":
        close(found.tokens_MLD[torch.arange(len(TEXTS)), ends], found.global_MD)
    if kind == "map_timm":
        close(found.tokens_MLD[:, -1], found.global_MD)
    if kind == "coca":
        text = model.text
        _, tokens = text(ids)
        close(found.tokens_MLD, text.ln_final(tokens) @ text.text_projection)


# --- pixels


def ramp(width: int, height: int) -> Image.Image:
    """Red is the column, green the row, in 200ths of the whole."""
    red, green = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray((np.stack([red, green, red * 0], axis=-1) * 200).round().astype(np.uint8))


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(400, 300), (300, 450), (333, 335), (900, 128), (20, 60)])
def test_area_is_where_the_pixels_are(mode, size):
    """The red and green of opened pixels say where in the original they lie: the area must say the same."""
    width, height = size
    opener = OpenClipPreprocess("m", (64, 64), mode, fill=255)
    pixels_3HW, (left, top, right, bottom) = opener(View(ImageItem("0", lambda: ramp(*size))))
    blue = pixels_3HW[2]
    inside = blue == 0
    columns = left + (torch.arange(64) + 0.5) * (right - left) / 64
    rows = top + (torch.arange(64) + 0.5) * (bottom - top) / 64
    red = (columns / width * 200).expand(64, 64)
    green = (rows / height * 200)[:, None].expand(64, 64)
    middle = inside.clone()
    middle[:, :2], middle[:, -2:], middle[:2], middle[-2:] = False, False, False, False
    assert (pixels_3HW[0].float() - red)[middle].abs().max() < 200 / 64 / 2 + 1.5
    assert (pixels_3HW[1].float() - green)[middle].abs().mean() < 1.5
    assert (pixels_3HW[0].float() - red)[middle].abs().mean() < 1.5
    if mode == "longest":
        within = (columns > 0) & (columns < width)
        assert torch.equal(inside.any(dim=0), within)
        assert min(left, top) <= 0
        assert max(right - width, bottom - height) >= 0
    if mode == "squash":
        assert (left, top, right, bottom) == (0, 0, width, height)


def test_area_of_a_grid_that_leaves_a_margin():
    """30 pixels hold three patches of 8: the last 6 are seen by no patch (SigLIP's 384 px in patches of 14)."""
    _, area = OpenClipPreprocess("m", (30, 30), "squash", cell=(8, 8))(View(ImageItem("0", lambda: ramp(60, 90))))
    assert area == (0, 0, 48, 72)


def test_centre_crop_by_hand():
    """500 x 375 becomes 298 x 224; 37 columns are cut off on the left, each 500 / 298 wide."""
    _, area = OpenClipPreprocess("m", (224, 224))(View(ImageItem("0", lambda: ramp(500, 375))))
    assert area == pytest.approx((37 * 500 / 298, 0, (37 + 224) * 500 / 298, 375))


def test_sizes_are_whole_patches_or_refused(tmp_path):
    ours = encoder(folder(tmp_path, "vit"))
    assert ours.images(sized(items()[:1], 48), PATCHES).grid == (6, 6)
    with pytest.raises(UserError, match=r"46 px are no whole number of .*'s patches of 8 px: take 48"):
        ours.images(sized(items()[:1], 46), PATCHES)
    with pytest.raises(UserError, match="patches of 8 px: take 48"):
        encoder(tmp_path, size=47)
    assert encoder(tmp_path, size=48).images(items()[:1], PATCHES).grid == (6, 6)


def renamed(path, side, **changes):
    """The folder's configuration with other values: its weights stay."""
    file = path / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"][side] |= changes
    file.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("kind", ["vit", "vit_average", "coca"])
def test_weights_of_another_size_or_text_length_are_refused_or_asked_for(kind, tmp_path):
    """Their positions would be interpolated, and no vector be the model's."""
    pictures, images, texts = items()[:2], frozenset({"global"}), TEXTS[:2]
    theirs = encoder(folder(tmp_path, kind))
    length = 19 if kind == "coca" else 20
    renamed(tmp_path, "vision_cfg", image_size=48)
    with pytest.raises(UserError, match=r"is of 32 x 32 pixels and .* of 48 x 48, so that .* write size = 32 into"):
        encoder(tmp_path)
    with pytest.raises(UserError, match=r"is of 32 x 32 pixels and size = 64 of 64 x 64"):
        encoder(tmp_path, size=64)
    found = encoder(tmp_path, size=32)
    assert torch.equal(found.images(pictures, images).global_ND, theirs.images(pictures, images).global_ND)
    renamed(tmp_path, "vision_cfg", image_size=32)
    renamed(tmp_path, "text_cfg", context_length=30)
    with pytest.raises(UserError, match=rf"of {length} tokens and .* of 30, .* write context = {length} into"):
        encoder(tmp_path)
    with pytest.raises(UserError, match=rf"is of texts of {length} tokens"):
        encoder(tmp_path, context=25)
    found = encoder(tmp_path, context=length)
    assert torch.equal(found.texts(texts, images).global_MD, theirs.texts(texts, images).global_MD)


def test_a_card_can_ask_for_interpolation(tmp_path):
    theirs = encoder(folder(tmp_path, "vit"))
    assert encoder(tmp_path, size=48).images(items()[:1], PATCHES).grid == (6, 6)
    longer = encoder(tmp_path, context=40)
    text = TEXTS[4:5]
    need = frozenset({"global"})
    assert longer.texts(text, need).global_MD.shape == theirs.texts(text, need).global_MD.shape
    assert not torch.allclose(longer.texts(text, need).global_MD, theirs.texts(text, need).global_MD)


def test_opening_is_picklable(tmp_path):
    ours = encoder(folder(tmp_path, "vit_average"))
    again = pickle.loads(pickle.dumps(ours._open))
    pixels, area = ours.preprocess(items()[0])
    assert torch.equal(again(items()[0])[0], pixels)
    assert again(items()[0])[1] == area
    assert pixels.dtype == torch.uint8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "coca", "map_timm"])
def test_half_precision_keeps_the_directions(kind, tmp_path):
    way = "value" if kind != "vit" else "sclip"
    plain = encoder(folder(tmp_path, kind), patches=way)
    half = encoder(tmp_path, Runtime(precision="bf16"), patches=way)
    few, need = items()[:2], GLOBAL | PATCHES
    one, other = plain.images(few, need), half.images(few, need)
    assert other.global_ND.dtype == other.patches[way].dtype == torch.float32
    assert (one.global_ND - other.global_ND).abs().max() > 0
    assert F.cosine_similarity(one.global_ND, other.global_ND).min() > 0.99
    assert F.cosine_similarity(one.patches[way], other.patches[way], dim=-1).min() > 0.98
    words = F.cosine_similarity(plain.texts(TEXTS, GLOBAL).global_MD, half.texts(TEXTS, GLOBAL).global_MD)
    assert words.min() > 0.99


# --- what a card names


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """Tiny-B-8 and Tiny-B-8-quickgelu are architectures of open_clip, with two tags of the hub; gives their weights."""
    saved = folder(tmp_path / "saved", "vit")
    config = json.loads((saved / "open_clip_config.json").read_text())["model_cfg"]
    gelu, quick = "Tiny-B-8", "Tiny-B-8-quickgelu"
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {gelu: config, quick: config | {"quick_gelu": True}})
    tags = {
        "openai": open_clip.pretrained._pcfg("https://openaipublic/abc/Tiny.pt", "timm/tiny.openai/", quick_gelu=True),
        "webli": open_clip.pretrained._slpcfg(hf_hub="timm/tiny.webli/tiny.bin"),
    }
    quick_tags = {"openai": tags["openai"]}
    monkeypatch.setattr(open_clip.pretrained, "_PRETRAINED", {gelu: tags, quick: quick_tags})
    asked: list[str] = []
    here = saved / WEIGHTS

    def local(repo: str, file: str, revision: str | None) -> Path | None:
        asked.append(f"{repo}/{file}@{revision}")
        return here if file in (WEIGHTS, "tiny.safetensors") else None

    monkeypatch.setattr(open_clip_source.hub, "find", local)
    return here, asked


def options(**values: Any) -> tuple[Options, None, str]:
    return Options(**values), None, "Model tiny"


def test_a_tag_decides_activation_and_preprocessing(registered):
    here, asked = registered
    openai = find(*options(weights="Tiny-B-8/openai", revision="abc"))
    assert (openai.file, openai.quick_gelu) == (here, True)  # though the architecture of that name has GELU
    assert asked[0] == f"timm/tiny.openai/{WEIGHTS}@abc"
    assert openai.preprocess_cfg["mean"] == open_clip.OPENAI_DATASET_MEAN
    webli = find(*options(model="Tiny-B-8", pretrained="webli"))
    assert (webli.quick_gelu, webli.preprocess_cfg["resize_mode"]) == (False, "squash")
    assert webli.preprocess_cfg["mean"] == (0.5, 0.5, 0.5)
    assert asked[-1] == "timm/tiny.webli/tiny.safetensors@None"
    with pytest.raises(UserError, match='was trained with activation = "quickgelu": write that'):
        find(*options(weights="Tiny-B-8/openai", activation="gelu"))


@torch.no_grad()
def test_openais_tag_gets_openais_activation(registered):
    """open_clip 3.3 itself only warns, and takes the architecture's GELU."""
    tagged = _load("Tiny-B-8/openai")
    stated = _load("Tiny-B-8-quickgelu/openai")
    close(tagged.texts(TEXTS, GLOBAL).global_MD, stated.texts(TEXTS, GLOBAL).global_MD)
    assert tagged.activation == "quickgelu"


def _load(word: str, **values: Any) -> OpenClipEncoder:
    return encoder(None, weights=word, **values)  # type: ignore[arg-type]


def test_a_file_that_was_fetched_by_url_is_used(registered, tmp_path, monkeypatch):
    here, _ = registered
    monkeypatch.setattr(open_clip_source.hub, "find", lambda *_: None)
    monkeypatch.setattr(open_clip_source, "URL_CACHE", tmp_path)
    (tmp_path / "Tiny.pt").write_bytes(here.read_bytes())
    assert find(*options(weights="Tiny-B-8/openai")).file == tmp_path / "Tiny.pt"


def test_what_is_not_here_is_asked_of_the_hub(registered, monkeypatch):
    obtained: list[str] = []

    def unreachable(repo: str, file: str, revision: str | None, sha256: str | None) -> Path:
        obtained.append(file)
        raise UserError(f"{file} of {repo} is not here: fetch it.")

    monkeypatch.setattr(open_clip_source.hub, "find", lambda *_: None)
    monkeypatch.setattr(open_clip_source.hub, "obtain", unreachable)
    with pytest.raises(UserError, match=r"^open_clip_model\.safetensors of timm/tiny\.openai is not here"):
        find(*options(weights="Tiny-B-8/openai"))
    assert obtained == [WEIGHTS, "open_clip_pytorch_model.bin"]
    with pytest.raises(UserError, match=r"open_clip_config\.json of some/one is not here"):
        find(*options(weights="hf-hub:some/one"))


def test_a_repository_of_the_hub(tmp_path, monkeypatch):
    saved = folder(tmp_path / "snapshot", "vit_average")
    monkeypatch.setattr(open_clip_source.hub, "obtain", lambda *asked: saved / asked[1])
    monkeypatch.setattr(open_clip_source.hub, "find", lambda *asked: saved / asked[1])
    there, here = _load("hf-hub:some/one"), encoder(saved)
    close(there.texts(TEXTS, GLOBAL).global_MD, here.texts(TEXTS, GLOBAL).global_MD)
    assert there.identity["preprocess"]["resize_mode"] == "longest"
    assert there.weights_hash == here.weights_hash


def test_a_bare_file_needs_its_activation(registered):
    here, _ = registered
    for named in ({"weights": f"Tiny-B-8/{here}"}, {"model": "Tiny-B-8", "pretrained": str(here)}):
        with pytest.raises(
            UserError, match=r'write activation = "quickgelu".*or name the architecture Tiny-B-8-quickg'
        ):
            find(*options(**named))
    with pytest.raises(UserError, match='write activation = "quickgelu"'):
        find(Options(model="Tiny-B-8"), here, "Model tiny")
    assert find(Options(model="Tiny-B-8", activation="gelu"), here, "Model tiny").quick_gelu is False
    assert find(Options(model="Tiny-B-8", activation="quickgelu"), here, "Model tiny").quick_gelu is True
    assert find(*options(weights=f"Tiny-B-8-quickgelu/{here}")).quick_gelu is True
    with pytest.raises(UserError, match='trained with activation = "quickgelu"'):
        find(*options(weights=f"Tiny-B-8-quickgelu/{here}", activation="gelu"))


def test_relative_files_and_slashes_in_names(registered, monkeypatch):
    here, _ = registered
    monkeypatch.chdir(here.parent)
    for word in (f"Tiny-B-8-quickgelu/{WEIGHTS}", f"Tiny-B/8-quickgelu/{WEIGHTS}", f"Tiny-B-8-quickgelu{here}"):
        assert find(*options(weights=word)).file.resolve() == here.resolve()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"weights": "Tiny-B-9/openai"}, "open_clip has no architecture 'Tiny-B-9': did you mean 'Tiny-B-8'"),
        ({"weights": "Tiny-B-8/openia"}, "'openia' is no tag of Tiny-B-8 and no file: did you mean 'openai'"),
        ({"weights": "Tiny-B-8"}, "is an architecture without weights: add /FILE or /TAG, which is openai or webli"),
        ({}, r'names no model: write \[options\] with model = "ViT-B-32" and pretrained = "openai"'),
        ({"weights": "Tiny-B-8/openai", "model": "Tiny-B-8"}, "stands for 'model' and 'pretrained'"),
        ({"weights": "local-dir:/nowhere"}, "no open_clip_config.json in /nowhere: save the model with"),
        ({"weights": "Tiny-B-8/openai", "sha256": "0" * 64}, "the sha256 .* but Model tiny says 000000000000"),
    ],
)
def test_what_a_card_cannot_mean(registered, values, sentence):
    with pytest.raises(UserError, match=sentence):
        find(*options(**values))


def test_a_file_without_its_architecture(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({"logit_scale": torch.zeros(())}, file)
    with pytest.raises(UserError, match=r"does not name its architecture: write open_clip:ARCHITECTURE/.*weights"):
        encoder(file)
    saved = folder(tmp_path / "saved", "vit")
    assert encoder(saved / WEIGHTS).weights_hash == encoder(saved).weights_hash  # its configuration lies beside it


@pytest.mark.slow
def test_openais_weights_with_gelu_are_refused(tmp_path):
    saved = folder(tmp_path, "vit")
    tensors = load_file(saved / WEIGHTS)
    exact = {name: tensor.half().float() for name, tensor in tensors.items()}
    exact["logit_scale"] = torch.tensor(math.log(100))
    assert is_openai(exact)
    assert not is_openai(tensors | {"logit_scale": exact["logit_scale"]})
    assert not is_openai(exact | {"logit_scale": torch.tensor(4.5)})
    save_file(exact, saved / WEIGHTS)
    for values in ({}, {"activation": "gelu"}):
        with pytest.raises(UserError, match=r'looks like OpenAI.s weights .* write activation = "quickgelu"'):
            encoder(saved, **values)
    assert encoder(saved, activation="quickgelu").activation == "quickgelu"


@pytest.mark.slow
def test_weights_of_another_architecture(tmp_path):
    vit, average = folder(tmp_path / "vit", "vit"), folder(tmp_path / "average", "vit_average")
    file = vit / WEIGHTS
    (average / WEIGHTS).write_bytes(file.read_bytes())
    with pytest.raises(
        UserError, match=r"its 'visual\.transformer\.resblocks\.0\.ls_1\.gamma' is missing where .* 48;"
    ):
        encoder(average)
    tensors = load_file(file)
    for odd, sentence in (
        (
            {"visual.conv1.weight": torch.zeros(48, 3, 16, 16)},
            r"'visual\.conv1\.weight' is 48 x 3 x 16 x 16 .*48 x 3 x 8",
        ),
        (
            {"head.weight": torch.zeros(2)},
            r"'head\.weight' is 2 where .* has no such tensor; name the right one as model",
        ),
        ({"vision_model.x": torch.zeros(2)}, r"is a checkpoint of transformers: name its folder as hf:"),
        ({"logit_scale": torch.tensor(float("nan"))}, "logit_scale.* NaN"),
    ):
        save_file(tensors | odd, file)
        with pytest.raises(UserError, match=sentence):
            encoder(vit)


def test_the_right_architecture_is_named():
    with torch.device("meta"):
        tower = open_clip.model.CLIP(
            **{key: value for key, value in open_clip.get_model_config("ViT-B-16").items() if key != "custom_text"}
        )
    assert fitting_architectures(tower.state_dict()) == ["ViT-B-16"]


def test_torchscript_is_refused_with_the_conversion(tmp_path):
    saved = folder(tmp_path, "vit")
    (saved / WEIGHTS).unlink()

    class Scale(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about TorchScript
        traced = torch.jit.trace(Scale(), torch.zeros(1))
        traced.save(str(saved / "ViT-B-32.pt"))
    with pytest.raises(UserError, match=r"is a TorchScript archive.* python -c .*torch\.jit\.load"):
        encoder(saved / "ViT-B-32.pt")


def test_big_vision_arrays_of_another_model_are_refused(tmp_path):
    saved = folder(tmp_path, "map_timm")
    np.savez(saved / "siglip.npz", **{"params/b": np.zeros(1)})
    with pytest.raises(UserError, match=r"siglip\.npz holds no big_vision weights of .* name its architecture"):
        encoder(saved / "siglip.npz")
    np.savez(saved / "code.npz", **{"params/b": np.array([print], dtype=object)})
    with pytest.raises(UserError, match=r"code\.npz holds no big_vision weights"):
        encoder(saved / "code.npz")


def test_a_tokenizer_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    saved = folder(tmp_path, "map_timm", hf_tokenizer_name="somebody/words")
    with pytest.raises(UserError, match=r"holds no tokenizer for .*put the files of somebody/words there"):
        encoder(saved)


@pytest.mark.slow
def test_identity_names_all_that_decides_a_vector(tmp_path):
    saved = folder(tmp_path, "vit")
    plain = encoder(saved).identity
    json.dumps(plain)
    for other in ({"patches": "value"}, {"size": 48}, {"activation": "quickgelu"}):
        assert encoder(saved, **other).identity != plain
    assert encoder(saved).identity == plain
