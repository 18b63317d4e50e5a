"""Training from a checkpoint: it begins with that model's vectors, and what is frozen stays."""

import json
import math
from itertools import count

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.recipe import Recipe
from sparc_bench.datasets import scenes1
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import own
from sparc_bench.errors import StoppedError, UserError
from sparc_bench.evaluation.exposure import exposure
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from sparc_bench.models import resolve
from sparc_bench.training import initial_model as initial_model_module
from sparc_bench.training import train as run_module
from sparc_bench.training.initial_model import initial_model, load_initial_weights
from sparc_bench.training.loop import learning_rate, make_optimizer
from sparc_bench.training.train import train
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.checkpoint import Meta
from sparc_bench.two_towers.model import build_model
from sparc_bench.two_towers.open_clip_towers import refuse_other_towers
from tests.unit.training.conftest import write_mini_clip

TEXTS = ["a dog!", "Two children PLAY on a red slide", "one of " * 30, ""]
SIZES = [(97, 64), (64, 131), (32, 32), (200, 50)]


def photo(seed):
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (*SIZES[seed][::-1], 3), dtype=np.uint8))


ITEMS = [View(ImageItem(str(k), lambda k=k: photo(k))) for k in range(len(SIZES))]


def begun(recipe, seed=0):
    """The encoder of a recipe's model before its first step."""
    initial = initial_model(recipe)
    model = build_model(recipe, initial.tokenizer, seed, initial.init_record)
    load_initial_weights(model, initial, recipe)
    meta = Meta(recipe, seed, 0, initial.tokenizer.state, {}, initial.init_record)
    return own.OwnEncoder(recipe.model_card(), model, meta, initial.tokenizer, "begun", Runtime())


def library_vectors(folder):
    """What open_clip itself makes of the same images and texts."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(photo(k)) for k in range(len(SIZES))]))
        return images, model.encode_text(tokenizer(TEXTS))


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def weights(folder):
    return checkpoint.model_state(checkpoint.read(folder / own.WEIGHTS_FILE)[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quick_gelu": False, "custom_text": True},
        {"vision_cfg": {"pool_type": "avg", "final_ln_after_pool": True}},
        {"text_cfg": {"no_causal_mask": True, "pool_type": "last"}},
    ],
    ids=["clip", "gelu, custom text", "average pooled", "not causal"],
)
def test_it_begins_with_the_vectors_of_the_checkpoint(changes, from_clip, tmp_path):
    folder = write_mini_clip(tmp_path / "model", **changes)
    encoder = begun(from_clip(init=f"open_clip:{folder}"))
    images, texts = library_vectors(folder)
    assert_close(encoder.images(ITEMS, frozenset({"global"})).global_ND, images)
    assert_close(encoder.texts(TEXTS, frozenset({"global"})).global_MD, texts)
    assert encoder.model.objective.scale.item() == pytest.approx(30)


def test_patches_tokens_and_areas_are_those_of_the_family(from_clip, mini_clip):
    ours, theirs = begun(from_clip("sparc")), resolve.load_encoder(resolve.resolve(f"open_clip:{mini_clip}"), Runtime())
    a, b = (encoder.images(ITEMS, frozenset({"patches"})) for encoder in (ours, theirs))
    assert_close(a.patches["local"], b.patches["last"])
    assert a.grid == b.grid
    torch.testing.assert_close(a.area_N4, b.area_N4)
    for text in TEXTS:
        a, b = (encoder.texts([text], frozenset({"tokens"})) for encoder in (ours, theirs))
        words = a.tokens_MLD[a.mask_ML]
        assert_close(words, b.tokens_MLD[b.mask_ML])
    assert ours.paths == {"local": True, "global": False}  # a class token's projection trains no patch


def test_a_short_batch_gives_what_the_full_context_gives(from_clip):
    ids_XL = initial_model(from_clip()).tokenizer([["a dog"], ["two red stars"]]).ids_BKL[:, 0]
    text = begun(from_clip()).model.towers.text.double()
    assert ids_XL.shape[-1] < text.context
    short, whole = text.trimmed(ids_XL), text.whole(ids_XL)
    torch.testing.assert_close(short[0], whole[0])
    torch.testing.assert_close(short[1], whole[1][:, : ids_XL.shape[-1]])
    parameters = list(text.trunk.parameters())
    gradients = [torch.autograd.grad(pooled.square().sum(), parameters) for pooled, _ in (short, whole)]
    for each, other in zip(*gradients, strict=True):
        torch.testing.assert_close(each, other)


@pytest.mark.slow
def test_frozen_towers_do_not_move_and_heads_do(from_clip, tmp_path):
    recipe = from_clip("pacl", freeze=["image", "text"])
    train(recipe, tmp_path / "run", None, 0, "cpu")
    before, after = initial_model(recipe).tensors(), weights(tmp_path / "run")
    towers = [name for name in after if name.startswith("towers.")]
    assert len(towers) > 40
    assert all(torch.equal(after[name], before[name]) for name in towers)
    for name in ("g_v.weight", "g_t.weight"):
        assert not torch.equal(after[f"objective.{name}"], before[f"objective.{name}"])
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())["start"]
    assert environment["heads_taken"] == ["g_t.weight", "g_v.weight", "log_scale"]
    assert "residual.0.weight" in environment["heads_new"]
    assert environment["sha256"] == initial_model(recipe).init_record.weights_hash


def test_a_frozen_tower_keeps_no_graph_and_stays_in_evaluation(from_clip):
    model = begun(from_clip(freeze=["image"])).model.train()
    assert not any(module.training for module in model.towers.image.modules())
    assert model.towers.text.training
    out = model.encode_image(torch.zeros(2, 32, 32, 3, dtype=torch.uint8))
    assert not out.patches_BPW.requires_grad
    assert not out.pooled_BMW.requires_grad
    learning = {id(p) for group in make_optimizer(model, from_clip().optim).param_groups for p in group["params"]}
    assert not learning & {id(p) for p in model.towers.image.parameters()}
    assert learning == {id(p) for part in (model.towers.text, model.objective) for p in part.parameters()}


@pytest.mark.slow
def test_each_tower_has_its_own_learning_rate(from_clip, tmp_path):
    recipe = from_clip("negclip", optim={"warmup": 1, "image_lr": 0.0, "text_lr": 1e-4})
    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(
                update={"options": {"n": 48, "negatives": ["replace_object"]}, "val_options": {"n": 16}}
            )
        }
    )
    train(recipe, tmp_path / "run", None, 0, "cpu")
    before, after = initial_model(recipe).tensors(), weights(tmp_path / "run")
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    assert {name for name, by in moved.items() if by == 0} == {n for n in before if n.startswith("towers.image.")}
    # three steps of AdamW: the warm-up's peak twice, then less
    text = max(by for name, by in moved.items() if name.startswith("towers.text."))
    assert 1e-4 < text < 4e-4
    assert 1e-3 < moved["objective.g_v.weight"] < 4e-3


def test_warm_up_and_cosine_scale_every_rate(from_clip):
    model = begun(from_clip()).model
    optim = from_clip(optim={"warmup": 1, "lr": 1e-2, "text_lr": 1e-3, "weight_decay": 0.5}).optim
    groups = make_optimizer(model, optim).param_groups
    assert {(group["peak"], group["weight_decay"]) for group in groups} == {
        (1e-2, 0.0), (1e-2, 0.5), (1e-3, 0.0), (1e-3, 0.5)
    }  # fmt: skip
    for step in range(8):
        one, tenth = (learning_rate(step, 8, peak, 3) for peak in (1e-2, 1e-3))
        assert tenth == pytest.approx(one / 10)


@pytest.mark.slow
def test_a_run_from_a_run_takes_towers_tokenizer_and_fitting_heads(tiny, from_clip, tmp_path):
    train(tiny, tmp_path / "first", None, 0, "cpu")
    recipe = from_clip("clip", init=str(tmp_path / "first"))
    initial = initial_model(recipe)
    first = resolve.load_encoder(resolve.resolve(str(tmp_path / "first")), Runtime())
    second = begun(recipe)
    for need in ("global", "patches"):
        a, b = (encoder.images(ITEMS, frozenset({need})) for encoder in (first, second))
        assert a.global_ND is None or torch.equal(a.global_ND, b.global_ND)
        assert all(torch.equal(a.patches[path], b.patches[path]) for path in a.patches)
    assert torch.equal(*(each.texts(TEXTS, frozenset({"global"})).global_MD for each in (first, second)))
    assert second.model.objective.options.dim == tiny.objective_options["dim"]
    _, new = load_initial_weights(build_model(recipe, initial.tokenizer, 0, initial.init_record), initial, recipe)
    assert new == []
    other = from_clip("pacl", init=str(tmp_path / "first"), objective_options={"temperature": 0.01})
    model = build_model(other, initial.tokenizer, 0, initial.init_record)
    taken, new = load_initial_weights(model, initial, other)
    assert taken == ["g_t.weight", "g_v.weight"]
    assert "log_scale" in new
    assert model.objective.scale.item() == pytest.approx(100)


@pytest.mark.slow
def test_a_run_needs_its_start_no_more(from_clip, tmp_path):
    folder = write_mini_clip(tmp_path / "model")
    summary = train(from_clip(init=f"open_clip:{folder}"), tmp_path / "run", None, 0, "cpu")
    for file in folder.iterdir():
        file.unlink()
    encoder = resolve.load_encoder(resolve.resolve(str(tmp_path / "run")), Runtime())
    assert encoder.images(ITEMS, frozenset({"global"})).global_ND.shape == (len(SIZES), 16)
    untrained = encoder.untrained().images(ITEMS, frozenset({"global"})).global_ND
    assert not torch.allclose(untrained, encoder.images(ITEMS, frozenset({"global"})).global_ND)
    assert train(from_clip(init=f"open_clip:{folder}"), tmp_path / "run", None, 0, "cpu") == summary
    again = from_clip("sparc", init=str(tmp_path / "run"))
    assert begun(again).images(ITEMS, frozenset({"global"})).global_ND.shape == (len(SIZES), 16)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_exactly_and_only_from_the_same_weights(from_clip, tmp_path, monkeypatch):
    folder = write_mini_clip(tmp_path / "model")
    recipe = from_clip(init=f"open_clip:{folder}", freeze=["text"], steps=4, eval_every=2)
    train(recipe, tmp_path / "whole", None, 0, "cpu")
    real = run_module.forward_backward

    steps = count()

    def stop_at(model, loaded, device, autocast):
        if next(steps) == 3:
            raise KeyboardInterrupt
        return real(model, loaded, device, autocast)

    with monkeypatch.context() as patched:
        patched.setattr("sparc_bench.training.loop.forward_backward", stop_at)
        with pytest.raises(StoppedError, match="Stopped by Ctrl-C"):
            train(recipe, tmp_path / "cut", None, 0, "cpu")
    before = (folder / "open_clip_model.safetensors").read_bytes()
    other = write_mini_clip(tmp_path / "other", seed=1)
    (folder / "open_clip_model.safetensors").write_bytes((other / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"was begun from other weights of .*: restore them, or delete that folder"):
        train(recipe, tmp_path / "cut", None, 0, "cpu")
    (folder / "open_clip_model.safetensors").write_bytes(before)
    assert train(recipe, tmp_path / "cut", None, 0, "cpu")["resumed_from"] == 2
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_what_the_start_was_trained_on_counts_as_seen(tiny, from_clip, tmp_path, monkeypatch):
    monkeypatch.setitem(scenes1.SPLITS, "val", "train")
    train(tiny, tmp_path / "first", None, 0, "cpu")
    train(from_clip(), tmp_path / "unknown", None, 0, "cpu")
    second = from_clip(init=str(tmp_path / "first"))
    data = second.data.model_copy(update={"split": "val"})
    train(second.model_copy(update={"data": data}), tmp_path / "known", None, 0, "cpu")
    known, unknown = (resolve.resolve(str(tmp_path / name)).card for name in ("known", "unknown"))
    assert known.trained_on == ("scenes1:val", "scenes1:train")
    assert unknown.trained_on == ("scenes1:train", "unknown")
    assert str(exposure(known.trained_on, "flickr8k", "test", 9)) == "none"
    assert str(exposure(unknown.trained_on, "flickr8k", "test", 9)) == "unknown"
    assert str(exposure(unknown.trained_on, "scenes1", "test", 9)) == "domain"
    assert str(exposure(unknown.trained_on, "scenes1", "train", 9)) == "9 images seen"
    first, merged, nothing = (
        checkpoint.read_meta(tmp_path / name / own.WEIGHTS_FILE).train_words for name in ("first", "known", "unknown")
    )
    assert nothing == {}
    assert merged["red"] > first["red"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["filip", "flair", "mgca", "mv_infonce"])
def test_other_objectives_learn_on_these_towers(objective, from_clip, tmp_path):
    summary = train(from_clip(objective), tmp_path / "run", None, 0, "cpu")
    assert all(math.isfinite(value) for value in summary["val"].values())


def test_branches_need_a_tower_that_has_them(from_clip):
    with pytest.raises(UserError, match="wants 5 class tokens and a tower of open_clip has one"):
        begun(from_clip("holistic"))


@pytest.mark.parametrize(
    ("vision", "text", "reason"),
    [
        ({"timm_model_name": "vit_tiny_patch16_224"}, {}, "a timm image tower"),
        ({"layers": [1, 1, 1, 1]}, {}, "a convolutional image tower"),
        ({"attentional_pool": True}, {}, "attentional pooling"),
        ({}, {"hf_model_name": "bert"}, "a Hugging Face text tower"),
        ({}, {"hf_tokenizer_name": "bert"}, "a Hugging Face tokenizer"),
        ({}, {"proj_bias": True}, "a bias in its text projection"),
    ],
)
def test_towers_of_another_kind_are_refused(vision, text, reason):
    with pytest.raises(UserError, match=rf"odd has {reason}.*: name a model with open_clip's own vision and text"):
        refuse_other_towers("odd", {"vision_cfg": vision, "text_cfg": text})


def test_a_model_of_another_family_is_refused(from_clip, monkeypatch):
    card = ModelCard(name="vectors", title="", family="precomputed", source="")
    monkeypatch.setattr(initial_model_module, "resolve", lambda _: resolve.ResolvedModel(card, None))
    with pytest.raises(UserError, match="family own or open_clip, and precomputed:x is of precomputed"):
        initial_model(from_clip(init="precomputed:x"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"init": None}, r"table \[image\] is missing"),
        ({"image": {}}, r"towers are those of init = .*: leave the table \[image\] out"),
        ({"freeze": ["text"], "optim": {"warmup": 1, "text_lr": 1e-4}}, r"leave optim\.text_lr out"),
        ({"freeze": ["texts"]}, "should be 'image' or 'text'"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(changes, sentence, from_clip):
    with pytest.raises(ValueError, match=sentence):
        from_clip(**changes)


def test_nothing_is_frozen_that_has_learned_nothing(tiny):
    with pytest.raises(ValueError, match="freeze names the image tower, which knows nothing yet"):
        Recipe.model_validate({**tiny.model_dump(), "freeze": ["image"]})
