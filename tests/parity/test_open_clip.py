"""The open_clip family against open_clip itself, on small random models of every kind of tower."""

import copy
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import resize_pos_embed
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from sparc_bench.cards import discovery
from sparc_bench.encoder import Runtime
from sparc_bench.encoders.open_clip import OpenClipEncoder
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.images.item import ImageItem, open_image_file
from sparc_bench.images.view import View
from sparc_bench.metrics.unit import in_unit
from sparc_bench.two_towers.open_clip_preprocess import open_clip_preprocess
from sparc_bench.two_towers.other_sizes import open_clip_vit_at
from tests.toys.tiny_open_clip import CONFIGS, TEXTS, encoder, folder, items, picture
from tests.toys.views import sized

GLOBAL = frozenset({"global"})
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def close(found: Tensor, expected: Tensor, within: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, atol=within, rtol=1e-5)


@pytest.fixture(scope="module", params=list(CONFIGS))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def ours(saved: Path) -> OpenClipEncoder:
    return encoder(saved)


@pytest.mark.slow
@torch.no_grad()
def test_images_and_texts_equal_the_librarys(saved, ours):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{saved}", pretrained_text=False)
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{saved}")
    pixels = torch.stack([transform(item.open()) for item in items()])
    images = ours.images(items(), GLOBAL).global_ND
    close(images, model.encode_image(pixels, normalize=False))
    assert images.std(dim=0).mean() > 1e-3  # else equal would mean nothing
    texts = ours.texts(TEXTS, GLOBAL).global_MD
    close(texts, model.encode_text(tokenizer(list(TEXTS)), normalize=False))
    assert texts.std(dim=0).mean() > 1e-3
    close(torch.tensor(ours.logit_scale), model.logit_scale.exp())


@pytest.mark.slow
def test_asking_for_patches_and_tokens_too_moves_no_global_vector(ours):
    both = ours.images(items(), frozenset({"global", "patches"}))
    close(both.global_ND, ours.images(items(), GLOBAL).global_ND)
    words = ours.texts(TEXTS, frozenset({"global", "tokens"}))
    close(words.global_MD, ours.texts(TEXTS, GLOBAL).global_MD)


@pytest.mark.slow
def test_batch_size_and_order_move_no_vector(ours):
    need = frozenset({"global", "tokens"})
    images, texts = ours.images(items(), GLOBAL), ours.texts(TEXTS, need)
    for batch_size in (1, 3, 64):
        other = copy.copy(ours)
        other.runtime = Runtime(batch_size=batch_size)
        close(other.images(items(), GLOBAL).global_ND, images.global_ND)
        close(other.texts(TEXTS, need).global_MD, texts.global_MD)
    close(ours.images(items()[::-1], GLOBAL).global_ND.flip(0), images.global_ND)
    backwards = ours.texts(TEXTS[::-1], need)
    close(backwards.global_MD.flip(0), texts.global_MD)
    close(backwards.tokens_MLD.flip(0)[texts.mask_ML], texts.tokens_MLD[texts.mask_ML])


@pytest.mark.slow
def test_workers_give_the_same_vectors(tmp_path):
    saved = folder(tmp_path, "vit")
    openers = [view.item.opener for view in items() * 6]  # too few need no workers
    many = [View(ImageItem(str(index), opener)) for index, opener in enumerate(openers)]
    alone = encoder(saved, Runtime(batch_size=8)).images(many, GLOBAL)
    helped = encoder(saved, Runtime(batch_size=8, workers=2)).images(many, GLOBAL)
    close(helped.global_ND, alone.global_ND)
    assert torch.equal(helped.area_N4, alone.area_N4)


@pytest.mark.parametrize("grid", [(6, 6), (2, 8), (8, 2), (3, 5)])
def test_positions_of_another_grid_are_those_of_the_library(grid, tmp_path):
    """Bit for bit; on a grid of other sides with as many patches (2 x 8 for 4 x 4) the library would leave them."""
    visual = open_clip.create_model(f"local-dir:{folder(tmp_path, 'vit')}").visual
    resized = open_clip_vit_at(visual, (8 * grid[0], 8 * grid[1]))
    positions = {"visual.positional_embedding": visual.positional_embedding.data}
    resize_pos_embed(positions, SimpleNamespace(visual=SimpleNamespace(grid_size=grid)))
    equal = torch.equal(resized.positional_embedding, positions["visual.positional_embedding"])
    assert equal == (grid[0] * grid[1] != 16)
    assert resized.positional_embedding.shape == (1 + grid[0] * grid[1], 48)
    assert resized.conv1.weight is visual.conv1.weight
    assert visual.positional_embedding.shape == (17, 48)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("sides", [(3, 3), (4, 6), (6, 2)])
@pytest.mark.parametrize("kind", ["vit_quickgelu", "token_timm", "map_timm"])
def test_other_sizes_interpolate_positions_like_the_library(kind, sides, tmp_path):
    saved = folder(tmp_path, kind)
    rows, columns = (side * (16 if kind == "vit_quickgelu" else 64) for side in sides)
    size = (rows, columns)
    plain = open_clip.create_model(f"local-dir:{saved}")
    model = plain.eval()
    if kind == "vit_quickgelu":
        model = open_clip.create_model(f"local-dir:{saved}", force_image_size=size).eval()
    else:
        model.visual.set_input_size(size)
    config = PreprocessCfg(**{**model.visual.preprocess_cfg, "size": rows if rows == columns else size})
    transform = image_transform_v2(config, is_train=False)
    expected = model.encode_image(torch.stack([transform(item.open()) for item in items()]))
    if rows == columns:
        close(encoder(saved, size=rows).images(items(), GLOBAL).global_ND, expected)
    ours = encoder(saved)
    own = ours.images(items(), GLOBAL).global_ND
    close(ours.images(sized(items(), rows, columns), GLOBAL).global_ND, expected)
    close(ours.images(items(), GLOBAL).global_ND, own)  # the resized copy left the tower as it was
    assert (own - expected).abs().max() > 1e-3


@pytest.mark.slow
@torch.no_grad()
def test_a_file_for_a_named_architecture(tmp_path, monkeypatch):
    saved = folder(tmp_path / "Tiny", "vit")
    config = json.loads((saved / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "Tiny-B-8.json").write_text(json.dumps(config))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [tmp_path / "Tiny-B-8.json"])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
    open_clip.add_model_config(tmp_path / "Tiny-B-8.json")
    file = saved / "open_clip_model.safetensors"
    texts = {}
    for activation in ("gelu", "quickgelu"):
        forced = activation == "quickgelu"
        model = open_clip.create_model("Tiny-B-8", pretrained=str(file), force_quick_gelu=forced).eval()
        texts[activation] = model.encode_text(open_clip.get_tokenizer("Tiny-B-8")(list(TEXTS)))
        ours = encoder(file, model="Tiny-B-8", activation=activation)
        close(ours.texts(TEXTS, GLOBAL).global_MD, texts[activation])
    assert (texts["gelu"] - texts["quickgelu"]).abs().max() > 1e-3


@pytest.mark.slow
@torch.no_grad()
def test_older_forms_of_a_file_are_converted_by_the_library(tmp_path):
    """A plain CLIP's tensors for a model with a text module of its own, wrapped as a trainer saves them."""
    plain = folder(tmp_path / "plain", "vit")
    tensors = open_clip.factory.load_state_dict(str(plain / "open_clip_model.safetensors"))
    custom = folder(tmp_path / "custom", "vit")
    config = (
        (custom / "open_clip_config.json").read_text().replace('"model_cfg": {', '"model_cfg": {"custom_text": true, ')
    )
    (custom / "open_clip_config.json").write_text(config)
    (custom / "open_clip_model.safetensors").unlink()
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()} | {
        "module.logit_scale": tensors["logit_scale"][None],
        "module.input_resolution": torch.tensor(32),  # as converted archives of TorchScript have it
        "module.attn_mask": torch.full((20, 20), float("-inf")).triu(1),
    }
    torch.save({"epoch": 3, "state_dict": wrapped}, custom / "open_clip_pytorch_model.bin")
    close(encoder(custom).texts(TEXTS, GLOBAL).global_MD, encoder(plain).texts(TEXTS, GLOBAL).global_MD)
    close(encoder(custom).images(items(), GLOBAL).global_ND, encoder(plain).images(items(), GLOBAL).global_ND)


@torch.no_grad()
def test_tokenizers_of_transformers_keep_their_cleaning_and_padding(tmp_path):
    saved = folder(
        tmp_path,
        "map_timm",
        hf_tokenizer_name="somebody/words",
        tokenizer_kwargs={"clean": "canonicalize"},
        vocab_size=50,
        context_length=9,
    )
    _word_tokenizer(saved)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about its own future
        model = open_clip.create_model(f"local-dir:{saved}").eval()
        tokenizer = open_clip.get_tokenizer(f"local-dir:{saved}")
        ours = encoder(saved)
    texts = ["A DOG, runs!", "a dog runs", "a dog runs " * 9, "zebra"]
    found = ours.texts(texts, frozenset({"global", "tokens"}))
    close(found.global_MD, model.encode_text(tokenizer(texts)))
    close(found.global_MD[0], found.global_MD[1])
    assert found.mask_ML.sum(dim=1).tolist() == [3, 3, 8, 1]  # of nine, the end of the text is no word
    assert found.tokens_MLD.shape == (4, 9, 96)


@torch.no_grad()
def test_a_text_tower_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    inner = tmp_path / "inner"
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.XLMRobertaConfig(vocab_size=50, max_position_embeddings=32, pad_token_id=1, **sizes)
    config.save_pretrained(inner)
    saved = tmp_path / "whole"
    named = {"hf_model_name": str(inner), "hf_tokenizer_name": "somebody/words", "hf_proj_type": "mlp"}
    folder(saved, "vit", **named, context_length=9)
    _word_tokenizer(saved)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = open_clip.create_model(f"local-dir:{saved}", pretrained_text=False).eval()
        tokenizer = open_clip.get_tokenizer(f"local-dir:{saved}")
        ours = encoder(saved)
    texts = ["a dog", "a dog runs " * 9]
    close(ours.texts(texts, GLOBAL).global_MD, model.encode_text(tokenizer(texts)))
    assert "tokens" not in ours.gives


@torch.no_grad()
def test_big_visions_arrays_are_read_by_the_library(tmp_path):
    """SigLIP's own files: the tensors of a small model, laid out as big_vision does, give that model's vectors."""
    saved = folder(tmp_path, "siglip_timm")
    before = encoder(saved)
    np.savez(saved / "siglip.npz", **_big_vision(load_file(saved / "open_clip_model.safetensors")))
    after = encoder(saved / "siglip.npz")
    close(after.images(items(), GLOBAL).global_ND, before.images(items(), GLOBAL).global_ND)
    close(after.texts(TEXTS, GLOBAL).global_MD, before.texts(TEXTS, GLOBAL).global_MD)
    assert (after.logit_scale, after.logit_bias) == (before.logit_scale, before.logit_bias)


def _big_vision(tensors: dict[str, Tensor], heads: int = 4) -> dict[str, np.ndarray]:
    """An open_clip SigLIP's tensors by big_vision's names, kernels with the input's axis first."""
    found: dict[str, Tensor] = {"b": tensors["logit_bias"][None], "t": tensors["logit_scale"][None]}

    def layer(name: str, weight: Tensor, bias: Tensor, last: str = "kernel") -> None:
        found[f"{name}/{last}"], found[f"{name}/bias"] = weight, bias

    def attention(name: str, qkv: Tensor, bias: Tensor, out: Tensor, out_bias: Tensor) -> None:
        for part, w, b in zip(("query", "key", "value"), qkv.chunk(3), bias.chunk(3), strict=True):
            layer(f"{name}/{part}", w.T.unflatten(1, (heads, -1)), b.unflatten(0, (heads, -1)))
        layer(f"{name}/out", out.T.unflatten(0, (heads, -1)), out_bias)

    def block(name: str, own: str, names: tuple[str, ...]) -> None:
        norm1, norm2, qkv, bias, out, fc1, fc2 = (f"{own}.{each}" for each in names)
        layer(f"{name}/LayerNorm_0", tensors[f"{norm1}.weight"], tensors[f"{norm1}.bias"], "scale")
        layer(f"{name}/LayerNorm_1", tensors[f"{norm2}.weight"], tensors[f"{norm2}.bias"], "scale")
        inner = (tensors[qkv], tensors[bias], tensors[f"{out}.weight"], tensors[f"{out}.bias"])
        attention(f"{name}/MultiHeadDotProductAttention_0", *inner)
        for index, fc in enumerate((fc1, fc2)):
            layer(f"{name}/MlpBlock_0/Dense_{index}", tensors[f"{fc}.weight"].T, tensors[f"{fc}.bias"])

    image = {name.removeprefix("visual.trunk."): tensor for name, tensor in tensors.items()}
    layer("img/embedding", image["patch_embed.proj.weight"].permute(2, 3, 1, 0), image["patch_embed.proj.bias"])
    found["img/pos_embedding"] = image["pos_embed"]
    timm_names = ("norm1", "norm2", "attn.qkv.weight", "attn.qkv.bias", "attn.proj", "mlp.fc1", "mlp.fc2")
    for index in range(3):
        block(f"img/Transformer/encoderblock_{index}", f"visual.trunk.blocks.{index}", timm_names)
    layer("img/Transformer/encoder_norm", image["norm.weight"], image["norm.bias"], "scale")
    pool, head = "attn_pool", "img/MAPHead_0"
    found[f"{head}/probe"] = image[f"{pool}.latent"]
    qkv, bias = (torch.cat([image[f"{pool}.q.{part}"], image[f"{pool}.kv.{part}"]]) for part in ("weight", "bias"))
    out = (image[f"{pool}.proj.weight"], image[f"{pool}.proj.bias"])
    attention(f"{head}/MultiHeadDotProductAttention_0", qkv, bias, *out)
    layer(f"{head}/LayerNorm_0", image[f"{pool}.norm.weight"], image[f"{pool}.norm.bias"], "scale")
    for index in range(2):
        fc = f"{pool}.mlp.fc{index + 1}"
        layer(f"{head}/MlpBlock_0/Dense_{index}", image[f"{fc}.weight"].T, image[f"{fc}.bias"])
    found["txt/Embed_0/embedding"] = tensors["text.token_embedding.weight"]
    found["txt/pos_embedding"] = tensors["text.positional_embedding"][None]
    own_names = ("ln_1", "ln_2", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
    for index in range(2):
        block(f"txt/Encoder_0/encoderblock_{index}", f"text.transformer.resblocks.{index}", own_names)
    layer("txt/Encoder_0/encoder_norm", tensors["text.ln_final.weight"], tensors["text.ln_final.bias"], "scale")
    layer("txt/head", tensors["text.text_projection.weight"].T, tensors["text.text_projection.bias"])
    return {f"params/{name}": tensor.numpy() for name, tensor in found.items()}


@pytest.mark.slow
def test_batch_size_and_workers_change_no_printed_metric(tmp_path):
    saved = folder(tmp_path / "saved", "vit")
    card = discovery.task("scenes_retrieval")
    printed = []
    for place, runtime in enumerate((Runtime(batch_size=64), Runtime(batch_size=7), Runtime(batch_size=16, workers=2))):
        settings = Settings(results=tmp_path / str(place), limit=40, runtime=runtime)
        (result,) = evaluate(f"open_clip:{saved}", [card], settings)
        assert result.record is not None, result.error
        printed.append({name: in_unit(metric.value) for name, metric in result.record.metrics.items()})
    assert printed[0] == printed[1] == printed[2]


def _word_tokenizer(where: Path) -> None:
    """A tokenizer of whole words in transformers' files, as SigLIP's: an end of text, then padding of the same id."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2, "dog": 3, "runs": 4, "A": 5, "DOG,": 6}, "<unk>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=words, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
        ).save_pretrained(where)


def published_recipe(image: Image.Image, size: int = 224) -> Tensor:
    """CLIP's preprocessing, written down from its description: Pillow's bicubic, short side first, centre crop."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    wide = int(size * long / short)
    width, height = (wide, size) if width > height else (size, wide)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    values = np.asarray(image.crop((left, top, left + size, top + size)).convert("RGB")).astype(np.float64) / 255
    return torch.from_numpy((values - OPENAI_MEAN) / OPENAI_STD).permute(2, 0, 1)


def opened(item: View) -> Tensor:
    open_image, normalised = open_clip_preprocess({"size": 224}, "CLIP", (32, 32), True)
    return normalised(open_image(item)[0][None])[0].double()


@pytest.mark.parametrize("size", [(224, 224), (500, 375), (375, 500), (640, 427), (227, 1000), (301, 300), (50, 41)])
def test_clip_preprocessing_is_the_published_one(size):
    item = View(ImageItem("0", lambda: picture(0, *size)))
    close(opened(item), published_recipe(item.open()), 1e-6)


@pytest.mark.slow
def test_clip_preprocessing_is_the_published_one_on_photos(test_data):
    photos = sorted((test_data / "voc2012_mini").rglob("*.jpg"))[:6]
    photos += sorted((test_data / "imagenet1k_sample").rglob("*.[jJ][pP]*"))[:6]
    photos += sorted((test_data / "coco_val2017_mini").rglob("*.jpg"))[:6]
    assert len({open_image_file(photo).size for photo in photos}) > 5
    for photo in photos:
        close(opened(View(ImageItem.file("0", photo))), published_recipe(Image.open(photo)), 1e-6)
