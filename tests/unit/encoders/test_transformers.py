"""What the transformers family does with files, options, sizes and texts; its vectors are tested in tests/parity."""

import json
import pickle
import shutil
import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from sparc_bench.cards.model_card import ModelCard  # noqa: E402
from sparc_bench.encoder import Runtime  # noqa: E402
from sparc_bench.encoders import transformers as family  # noqa: E402
from sparc_bench.errors import UserError  # noqa: E402
from sparc_bench.images.item import ImageItem  # noqa: E402
from sparc_bench.images.view import View  # noqa: E402
from sparc_bench.weights.weights_file import file_sha256  # noqa: E402
from tests.toys import tiny_transformers as tiny  # noqa: E402
from tests.toys.views import sized  # noqa: E402

GLOBAL = frozenset({"global"})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tiny.Folders(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def own(folders, tmp_path):
    """A folder of one kind that a test may change."""
    return lambda kind: shutil.copytree(folders(kind), tmp_path / kind)


def load(folder, **options):
    card = ModelCard(name="tiny", title="tiny", family="transformers", source="test", options=options)
    return family.load(card, folder, Runtime(batch_size=4))


def refusal(folder, **options):
    with pytest.raises(UserError) as caught:
        load(folder, **options)
    return str(caught.value)


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def item(image):
    return View(ImageItem("0", partial(_same, image)))


def _same(image):
    return image


def vectors(encoder):
    images = encoder.images([item(image) for image in tiny.photos()], GLOBAL).global_ND
    return torch.cat([images, encoder.texts(tiny.TEXTS, GLOBAL).global_MD])


def texts(encoder, *words):
    return encoder.texts(words, GLOBAL).global_MD


def test_a_missing_extra_is_a_sentence(folders, monkeypatch):
    folder = folders("clip")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert refusal(folder) == 'tiny needs the library transformers: pip install "sparc-bench[hf]"'


def test_loading_says_nothing_and_leaves_the_librarys_logging_as_it_was(folders, capfd):
    folder, logging = folders("siglip"), transformers.utils.logging
    capfd.readouterr()
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(folder)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.slow
def test_sharded_torch_and_half_precision_files_of_the_same_weights_give_the_same_vectors(own):
    folder = own("clip")
    model = transformers.AutoModel.from_pretrained(folder).half()
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    sharded = load(folder)
    for file in folder.glob("model*"):
        file.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    from_torch = load(folder)
    (folder / "pytorch_model.bin").unlink()
    save_file({name: tensor.float() for name, tensor in tensors.items()}, folder / "model.safetensors")
    expected = vectors(load(folder))
    torch.testing.assert_close(vectors(sharded), expected)
    torch.testing.assert_close(vectors(from_torch), expected)
    assert len({sharded.weights_hash, from_torch.weights_hash, load(folder).weights_hash}) == 3


def test_a_file_of_weights_names_its_folder_and_a_pin_is_checked(folders):
    file = folders("clip") / "model.safetensors"
    pin = file_sha256(file)
    assert torch.equal(vectors(load(file, sha256=pin)), vectors(load(None, weights=str(file.parent))))
    assert load(file.parent).weights_hash == pin
    assert "says 000000000000...: restore the file, or mend the card." in refusal(file, sha256="0" * 64)
    assert "both" in refusal(file, weights="openai/clip-vit-base-patch32")
    assert refusal(None).endswith('write weights = "OWNER/NAME" into its options.')


def test_position_ids_of_older_checkpoints_are_let_through(own):
    folder = own("clip")
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = torch.arange(tiny.CONTEXT)[None]
    expected = vectors(load(folder))
    save_file(tensors, folder / "model.safetensors")
    assert torch.equal(vectors(load(folder)), expected)


def lacking(tensors):
    del tensors["logit_scale"]


def surplus(tensors):
    tensors["vision_model.encoder.layers.2.mlp.fc1.weight"] = torch.ones(2, 2)


def of_another_shape(tensors):
    tensors["visual_projection.weight"] = torch.ones(24, 31)


def not_finite(tensors):
    tensors["visual_projection.weight"][3, 4] = torch.nan


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lacking, "lacks 'logit_scale' (1 such) for the CLIPModel of config.json: take both from the same checkpoint."),
        (surplus, "has an unknown 'vision_model.encoder.layers.2.mlp.fc1.weight' (1 such)"),
        (of_another_shape, "'visual_projection.weight' has the shape (24, 31), but config.json asks for (24, 32)"),
        (not_finite, "1 of 768 values of 'visual_projection.weight' are NaN or infinite"),
    ],
)
def test_weights_that_do_not_fit_are_a_sentence(own, spoil, sentence):
    folder = own("clip")
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors)
    save_file(tensors, folder / "model.safetensors")
    assert sentence in refusal(folder)


class Payload:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_malicious_pickle_is_refused_and_not_executed(own, tmp_path):
    folder = own("clip")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"logit_scale": Payload(tmp_path / "ran")}))
    assert "can only be unpickled, which runs any code in it" in refusal(folder)
    assert not (tmp_path / "ran").exists()


def test_damaged_and_missing_files_are_a_sentence(own):
    folder = own("clip")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    assert "is truncated, damaged or no checkpoint" in refusal(folder)
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "merges.txt").unlink()
    assert "has no vocabulary for its tokenizer (merges.txt is missing): copy it there." in refusal(folder)
    (folder / "vocab.json").unlink()
    assert "has no vocabulary for its tokenizer (tokenizer.json is missing): copy it there." in refusal(folder)
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1")
    assert "by its tokenizer's files" in refusal(folder)
    shutil.move(folder / "preprocessor_config.json", folder / "kept.json")
    assert "lacks its image processor (preprocessor_config.json), which" in refusal(folder)
    (folder / "preprocessor_config.json").write_text("{")
    assert "by preprocessor_config.json" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert "holds no settings" in refusal(folder)
    (folder / "config.json").unlink()
    assert "has no config.json: name a folder that save_pretrained wrote." in refusal(folder)
    (folder / "model.safetensors").unlink()
    assert "holds none of model.safetensors" in refusal(folder)


def test_a_model_saved_without_its_processor_and_tokenizer(own, monkeypatch):
    """What `CLIPModel.save_pretrained` writes; nothing is loaded before it is said."""
    folder = own("clip")
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    monkeypatch.setattr(family.files, "read_tensors", None)
    sentence = refusal(folder)
    assert "lacks its image processor (preprocessor_config.json) and its tokenizer (tokenizer.json), which" in sentence
    for part in ("AutoImageProcessor", "AutoTokenizer"):
        assert f"transformers.{part}.from_pretrained(NAME).save_pretrained('{folder}')" in sentence


def test_other_models_are_a_sentence(own):
    folder = own("siglip")
    change(folder / "config.json", model_type="not_yet_known")
    assert "knows no 'not_yet_known'" in refusal(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_cfg": config}))
    assert "names no architecture of transformers" in refusal(folder)
    vision = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**tiny.VISION))
    vision.save_pretrained(folder)
    assert refusal(folder).startswith("tiny is a SiglipVisionModel, which has no get_image_features")


CODE = """
from pathlib import Path  # noqa: E402
from transformers import CLIPConfig, CLIPModel  # noqa: E402

Path("{marker}").touch()

class OwnConfig(CLIPConfig):
    model_type = "own_clip"

class OwnModel(CLIPModel):
    config_class = OwnConfig

    def get_image_features(self, pixel_values):
        found = super().get_image_features(pixel_values)
        return -getattr(found, "pooler_output", found)
"""


@pytest.fixture
def with_code(own, tmp_path, monkeypatch):
    folder, marker = own("clip"), tmp_path / "ran"
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "own_clip.py").write_text(CODE.format(marker=marker))
    names = {"AutoConfig": "own_clip.OwnConfig", "AutoModel": "own_clip.OwnModel"}
    change(folder / "config.json", model_type="own_clip", architectures=["OwnModel"], auto_map=names)
    return folder, marker


@pytest.mark.parametrize("options", [{}, {"remote_code": "someone/else"}])
def test_code_that_no_card_asks_for_by_name_does_not_run(with_code, options):
    folder, marker = with_code
    assert refusal(folder, **options).endswith('write remote_code = "clip" into the options of its card.')
    assert not marker.exists()


def test_code_that_a_card_asks_for_runs_and_is_never_cached(with_code, folders):
    folder, marker = with_code
    found = load(folder, remote_code="clip")
    assert marker.exists()
    assert found.identity is None
    assert found.gives == {"image", "text", "global"}
    expected = vectors(load(folders("clip")))
    expected[:5] *= -1
    torch.testing.assert_close(vectors(found), expected)


def test_a_known_architecture_runs_no_code_of_its_folder(with_code, folders):
    folder, marker = with_code
    change(folder / "config.json", model_type="clip")
    assert torch.equal(vectors(load(folder)), vectors(load(folders("clip"))))
    assert "runs no code: leave remote_code out." in refusal(folder, remote_code="clip")
    assert not marker.exists()


def test_code_of_another_repository_is_named(with_code):
    folder, _ = with_code
    change(folder / "config.json", auto_map={"AutoModel": "other/place--own_clip.OwnModel"})
    assert "runs code of its own from other/place, but its card names 'clip'" in refusal(folder, remote_code="clip")


@pytest.mark.parametrize(
    ("kind", "asked", "sentence"),
    [
        ("siglip", "last", 'tiny has the patches value, but its card asks for patches = "last"'),
        ("siglip2_naflex", "value", "tiny has no grid of patches in the joint space"),
        ("group_vit", "sclip", "tiny has no grid of patches in the joint space"),
        ("clip", "best", "'patches' input should be 'last', 'value', 'sclip' or 'clearclip'"),
    ],
)
def test_ways_that_an_architecture_does_not_have_are_refused(folders, kind, asked, sentence):
    assert sentence in refusal(folders(kind), patches=asked)


@pytest.mark.slow
def test_what_is_given(folders):
    everything = {"image", "text", "global", "tokens", "patches"}
    assert load(folders("clip")).gives == everything
    assert load(folders("siglip")).gives == everything - {"patches"}
    assert load(folders("siglip"), patches="value").gives == everything
    assert load(folders("group_vit")).gives == {"image", "text", "global"}
    found = load(folders("clip")).images([item(tiny.photos()[0])], frozenset({"patches"}))
    assert found.global_ND is None
    assert load(folders("clip")).texts(["a"], frozenset({"tokens"})).global_MD is None


def test_logit_scale_and_bias_are_the_models(folders):
    tensors = load_file(folders("siglip") / "model.safetensors")
    found = load(folders("siglip"))
    assert found.logit_scale == pytest.approx(float(tensors["logit_scale"].exp()))
    assert found.logit_bias == pytest.approx(float(tensors["logit_bias"]))
    assert load(folders("clip")).logit_bias is None


def test_siglip_knows_neither_case_nor_punctuation(folders):
    one, other = texts(load(folders("siglip")), "a photo of a cat", "A Photo, of a CAT!")
    assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["siglip2_fixed", "siglip2_naflex"])
def test_siglip_2_knows_no_case_but_punctuation(folders, kind):
    one, other, third = texts(load(folders(kind)), "a cat", "A CAT", "a cat!")
    assert torch.equal(one, other)
    assert (one - third).abs().max() > 1e-3
    one, third = texts(load(folders(kind), clean="canonicalize"), "a cat", "A cat!")
    assert torch.equal(one, third)


def test_texts_of_siglip_are_padded_on_the_right_whatever_the_tokenizer_says(own):
    folder = own("siglip2_fixed")
    expected = texts(load(folder), "a cat")
    change(folder / "tokenizer_config.json", padding_side="left", model_input_names=["input_ids", "attention_mask"])
    assert torch.equal(texts(load(folder), "a cat"), expected)


def test_a_siglip_with_an_unknown_tokenizer_has_to_say_how_texts_are_cleaned(own):
    folder = own("siglip2_fixed")
    change(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert 'write clean = "none", "lower" or "canonicalize"' in refusal(folder)
    one, other = texts(load(folder, clean="lower"), "a cat", "A CAT")
    assert torch.equal(one, other)


def test_a_tokenizer_without_end_of_text_is_refused(own):
    folder = own("siglip2_fixed")
    change(folder / "tokenizer.json", post_processor=None)
    change(folder / "tokenizer_config.json", add_eos_token=False)
    assert "adds no <eos> to a text" in refusal(folder)


def test_a_long_text_keeps_its_end_of_text(folders):
    encoder = load(folders("clip"))
    long, cut = "giraffe " * 100, "giraffe " * 2  # 14 tokens: no merges
    assert encoder.texts([long], frozenset({"tokens"})).mask_ML.sum() == tiny.CONTEXT - 2
    assert torch.equal(*texts(encoder, long, cut))
    assert not torch.equal(*texts(encoder, long, "giraffe"))


def test_clip_configurations_of_before_july_2023_pool_at_the_highest_id(tmp_path):
    """eos_token_id = 2 stands in OpenAI's checkpoints, whose EOS is the last of the vocabulary."""
    as_it_is, older = tiny.clip(tmp_path / "now"), tiny.clip(tmp_path / "then", eos_in_config=2)
    torch.testing.assert_close(vectors(load(as_it_is)), vectors(load(older)))


@pytest.mark.parametrize(
    ("kind", "size", "fix"),
    [("siglip2_naflex", 48, "leave the size out"), ("group_vit", 48, "leave the size out"), ("clip", 7, "at least")],
)
def test_sizes_that_a_model_cannot_take_are_refused(folders, kind, size, fix):
    encoder = load(folders(kind))
    with pytest.raises(UserError, match=fix):
        encoder.images(sized([item(tiny.photos()[0])], size), GLOBAL)


def test_an_image_processor_of_another_size_is_refused(own):
    folder = own("clip")
    change(folder / "preprocessor_config.json", crop_size={"height": 48, "width": 48})
    assert "makes images of 48 x 48 px, but the model takes 32 px" in refusal(folder)
    change(folder / "preprocessor_config.json", do_center_crop=False)
    assert "makes images of varying shape" in refusal(folder)


def ramp(width, height):
    """Red is the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("shape", [(200, 120), (90, 211), (64, 64)])
@pytest.mark.parametrize("size", [None, (48, 48), (32, 64), (64, 32)])
def test_the_area_is_what_the_pixels_show(folders, kind, shape, size):
    encoder = load(folders(kind))
    image = ramp(*shape)
    view = item(image) if size is None else sized([item(image)], *size)[0]
    pixels, (left, top, right, bottom) = encoder.preprocess(view)
    settings = json.loads((folders(kind) / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(settings[f"image_{each}"])[:, None, None] for each in ("mean", "std"))
    shown = (pixels * std + mean) * 255
    assert size is None or pixels.shape[-2:] == size
    for values, first, last in ((shown[0].mean(0), left, right), (shown[1].mean(1), top, bottom)):
        inner = slice(len(values) // 4, 3 * len(values) // 4)  # resampling clips at the border
        places = (torch.arange(len(values)) + 0.5)[inner] / len(values)
        assert (values[inner] - (first + places * (last - first) - 0.5)).abs().max() < 0.6


def test_the_area_ends_with_the_grid_of_patches(tmp_path):
    """384 px in patches of 14, as SigLIP has them, leave 6 px uncovered; here 36 px in patches of 8 leave 4."""
    pixels = tiny.CLIP_PIXELS | {"size": {"shortest_edge": 36}, "crop_size": {"height": 36, "width": 36}}
    found = load(tiny.clip(tmp_path / "clip", pixels=pixels, image_size=36))
    features = found.images([item(Image.new("RGB", (72, 72)))], frozenset({"patches"}))
    assert features.grid == (4, 4)
    assert features.area_N4.tolist() == [[0, 0, 64, 64]]


def test_images_travel_to_other_processes(folders):
    for kind in ("clip", "siglip2_naflex"):
        encoder = load(folders(kind))
        carried = pickle.loads(pickle.dumps(encoder._open))
        assert torch.equal(carried(item(tiny.photos()[0]))[0], encoder.preprocess(item(tiny.photos()[0]))[0])


@pytest.mark.slow
def test_the_identity_changes_with_all_that_decides_a_vector(own):
    folder = own("siglip2_fixed")
    found = [load(folder).identity, load(folder, patches="value").identity, load(folder, clean="none").identity]
    change(folder / "preprocessor_config.json", resample=2)
    found.append(load(folder).identity)
    change(folder / "config.json", transformers_version="another")
    found.append(load(folder).identity)
    hashes = {json.dumps(each, sort_keys=True) for each in found}
    assert len(hashes) == len(found)
    assert json.dumps(load(folder).identity, sort_keys=True) in hashes


class Output:
    pooler_output = None


def test_features_that_are_no_vectors_are_a_sentence(folders, monkeypatch):
    encoder = load(folders("clip"))
    monkeypatch.setattr(type(encoder._model), "get_text_features", lambda *_, **__: torch.zeros(1, 3, 24))
    with pytest.raises(UserError, match="get_text_features of CLIPModel returns a tensor of 3 axes instead of one"):
        texts(encoder, "a")
    monkeypatch.setattr(type(encoder._model), "get_text_features", lambda *_, **__: Output())
    with pytest.raises(UserError, match="returns Output instead of one vector each"):
        texts(encoder, "a")
