"""Every family of encoders keeps the promises of the seam, whatever the batches, the order and the workers.

Shapes: N images, M texts, P patches, L text tokens, D joint width, R regions.
"""

import dataclasses
import json
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch

from sparc_bench.cards import discovery
from sparc_bench.cli.evaluated import with_interval
from sparc_bench.encoder import GIVES, ImageTextEncoder, Runtime
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate, evaluate_encoder
from sparc_bench.features import Regions
from sparc_bench.images.item import ImageItem, open_image_file
from sparc_bench.images.view import View
from sparc_bench.models.plugin_encoder import checked_encoder
from sparc_bench.models.resolve import load_encoder, resolve
from tests.toys import families
from tests.toys.model_inputs import TEXTS, cropped, items, task
from tests.toys.views import sized

MANY = 40
"""Images: more than are decoded without workers."""

CLOSE = 1e-5
"""Of a vector's length: what batches and workers may change in float32."""

IMAGE, TEXT = frozenset({"global", "branches", "patches"}), frozenset({"global", "tokens"})


@pytest.fixture(scope="module", autouse=True)
def plugins_are_forgotten():
    before = dict(discovery._plugins)
    yield
    discovery._plugins.clear()
    discovery._plugins.update(before)


@pytest.fixture(scope="module", params=sorted({*families.names(), *discovery.names("encoders")}))
def model(request, tmp_path_factory):
    """The word that names a small random model as MODEL."""
    if request.param not in families.names():
        pytest.fail(f"write tests/toys/families/{request.param}.py, which makes a small model of this family")
    family = families.load(request.param)
    if hasattr(family, "LIBRARY"):
        pytest.importorskip(family.LIBRARY, reason=f"{family.LIBRARY} is not installed")
    return family.tiny(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def load(model):
    def loaded(batch_size=256, workers=0, precision="float32", **options):
        resolved = resolve(model)
        card = resolved.card.model_copy(update={"options": {**resolved.card.options, **options}})
        return load_encoder(dataclasses.replace(resolved, card=card), Runtime("cpu", precision, batch_size, workers))

    return loaded


@pytest.fixture(scope="module")
def encoder(load):
    return load()


@pytest.fixture(scope="module")
def images(encoder):
    return encoder.images(items(MANY), IMAGE & encoder.gives)


@pytest.fixture(scope="module")
def texts(encoder):
    return encoder.texts(TEXTS, TEXT & encoder.gives)


def apart(one, other):
    """The largest distance of two rows of vectors, as a share of the longest."""
    one, other = one.flatten(0, -2), other.flatten(0, -2)
    return float((one - other).norm(dim=-1).max() / one.norm(dim=-1).max())


def parts(features):
    """All tensors of vectors in features; of tokens, those that are words."""
    if hasattr(features, "patches"):
        found = {"global": features.global_ND, "branches": features.branches_NKD, **features.patches}
    else:
        words = None if features.tokens_MLD is None else features.tokens_MLD * features.mask_ML[..., None]
        found = {"global": features.global_MD, "tokens": words}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def same(one, other):
    assert parts(one).keys() == parts(other).keys()
    assert all(apart(tensor, parts(other)[name]) <= CLOSE for name, tensor in parts(one).items())


@pytest.mark.slow
def test_seam_is_whole(load, encoder):
    assert checked_encoder(load(), "here", "").gives == encoder.gives
    assert encoder.gives >= {"image", "text"}
    assert encoder.gives <= GIVES
    assert bool(encoder.paths) == ("patches" in encoder.gives)
    assert encoder.prompt_ensemble in ("embeddings", "scores")
    assert encoder.weights_hash
    assert encoder.untrained() is None or encoder.untrained().gives == encoder.gives


@pytest.mark.slow
def test_image_features_are_what_gives_says(encoder, images):
    width = {tensor.shape[-1] for tensor in parts(images).values()}
    assert len(width) == 1
    assert images.ids == tuple(item.id for item in items(MANY))
    assert {tensor.dtype for tensor in parts(images).values()} == {torch.float32}
    assert all(torch.isfinite(tensor).all() and len(tensor) == MANY for tensor in parts(images).values())
    assert (images.global_ND is not None) == ("global" in encoder.gives)
    assert (images.branches_NKD is not None) == ("branches" in encoder.gives)
    assert list(images.patches) == list(encoder.paths)
    if "patches" in encoder.gives:
        assert {len(patches[0]) for patches in images.patches.values()} == {images.grid[0] * images.grid[1]}
        for item, area in zip(items(MANY), images.area_N4.tolist(), strict=True):
            left, top, right, bottom = area
            assert 0 <= left < right <= item.open().width
            assert 0 <= top < bottom <= item.open().height
            assert encoder.preprocess(item)[1] == pytest.approx(tuple(area))


def test_text_features_are_what_gives_says(encoder, texts, images):
    assert texts.texts == TEXTS
    assert {tensor.dtype for tensor in parts(texts).values()} == {torch.float32}
    assert {tensor.shape[-1] for tensor in (*parts(texts).values(), *parts(images).values())} == {
        next(iter(parts(images).values())).shape[-1]
    }
    assert all(torch.isfinite(tensor).all() and len(tensor) == len(TEXTS) for tensor in parts(texts).values())
    assert (texts.global_MD is not None) == ("global" in encoder.gives)
    assert (texts.tokens_MLD is not None) == ("tokens" in encoder.gives)
    if texts.tokens_MLD is not None:
        assert texts.mask_ML.shape == texts.tokens_MLD.shape[:2]
        assert texts.mask_ML.dtype == torch.bool
        assert texts.mask_ML[:-1].any(dim=1).all()  # every text but the empty one has words


def test_vectors_tell_images_and_texts_apart(images, texts):
    for name, tensor in (*parts(images).items(), ("text", parts(texts)["global"])):
        rows = torch.nn.functional.normalize(tensor.flatten(1), dim=1)
        assert (rows[0] - rows[2]).norm() > 100 * CLOSE, name


def test_only_what_is_needed_is_given(encoder):
    for name in IMAGE & encoder.gives:
        found = encoder.images(items(2), frozenset({name}))
        assert set(parts(found)) == (set(encoder.paths) if name == "patches" else {name})
    for name in TEXT & encoder.gives:
        assert set(parts(encoder.texts(TEXTS[:2], frozenset({name})))) == {name}


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_batch_size_moves_nothing(load, encoder, images, texts, batch_size):
    other = load(batch_size)
    few = items(9)
    same(images[:9], other.images(few, IMAGE & encoder.gives))
    same(texts, other.texts(TEXTS, TEXT & encoder.gives))


@pytest.mark.slow
def test_workers_move_nothing(load, encoder, images):
    found = load(batch_size=7, workers=2).images(items(MANY), IMAGE & encoder.gives)
    assert found.ids == images.ids
    same(images, found)


def test_order_moves_nothing(encoder, images, texts):
    order = [4, 0, 6, 2, 2, 5]
    shuffled = encoder.images([items(MANY)[at] for at in order], IMAGE & encoder.gives)
    for name, tensor in parts(shuffled).items():
        assert apart(tensor, parts(images)[name][order]) <= CLOSE
    global_MD = encoder.texts([TEXTS[at] for at in order], frozenset({"global"})).global_MD
    assert apart(global_MD, texts.global_MD[order]) <= CLOSE


def test_stream_gives_the_same_in_batches_that_keep_to_groups(load, images):
    views, taken = items(MANY), []

    def lazily():
        for group in (views[:20], [], views[20:39], views[39:]):
            taken.append(len(group))
            yield group

    runs = list(load(batch_size=16).stream(lazily(), IMAGE & load().gives))
    assert [len(run) for run in runs] == [16, 4, 16, 3, 1]
    assert taken == [20, 0, 19, 1]
    assert [item_id for run in runs for item_id in run.ids] == list(images.ids)
    for name, tensor in parts(images).items():
        assert apart(torch.cat([parts(run)[name] for run in runs]), tensor) <= CLOSE
    assert list(load().stream([[]], frozenset({"global"}))) == []


@pytest.mark.slow
def test_half_precision_comes_as_float32(load, encoder, images):
    found = load(precision="bf16").images(items(3), IMAGE & encoder.gives)
    assert {tensor.dtype for tensor in parts(found).values()} == {torch.float32}
    assert all(apart(tensor, parts(images)[name][:3]) < 0.1 for name, tensor in parts(found).items())


def test_scores(encoder, images, texts):
    some = images[:5]
    for scores in encoder.similarity(some, texts):
        assert scores.shape == (5, len(TEXTS))
        assert torch.isfinite(scores).all()
    for path in encoder.paths:
        dense = encoder.dense_scores(some, texts, path)
        assert dense.shape == (5, len(TEXTS), *images.grid)
        assert torch.isfinite(dense).all()
        patches = images.grid[0] * images.grid[1]
        regions = Regions(torch.full((3, patches), 1 / patches), torch.tensor([0, 4, 4]))
        for scores in encoder.similarity(some, texts, regions, path):
            assert scores.shape == (3, len(TEXTS))
            assert torch.equal(scores[1], scores[2])


def test_a_window_is_an_image_of_its_own_at_its_place(encoder):
    part, whole = cropped()
    need = IMAGE & encoder.gives
    found, alone = encoder.images([part], need), encoder.images([whole], need)
    same(found, alone)
    if found.area_N4 is not None:
        x, y = part.window[:2]
        left, top, right, bottom = found.area_N4[0].tolist()
        assert part.window[0] <= left < right <= part.window[2]
        assert part.window[1] <= top < bottom <= part.window[3]
        assert (left - x, top - y, right - x, bottom - y) == pytest.approx(alone.area_N4[0].tolist(), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_one_sentence(load, workers, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    broken = View(ImageItem("broken.jpg", partial(open_image_file, tmp_path / "broken.jpg")))
    with pytest.raises(UserError, match=r"broken\.jpg") as error:
        load(batch_size=7, workers=workers).images([*items(MANY - 1), broken], frozenset({"global"}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(96, 96), (64, 96), (96, 64), (16, 64)])
def test_another_size_works_or_is_one_sentence(encoder, images, size):
    """A model takes inputs that are no square with a grid of as many cells, or is refused by name."""
    sentence, found = "", None
    views = sized(items(2), *size)
    try:
        found = encoder.images(views, IMAGE & encoder.gives)
    except UserError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert ("size out" in sentence) == (found is None)
    assert encoder.card.family not in ("open_clip", "own", "transformers") or found is not None
    if found is None:
        return
    assert all(torch.isfinite(tensor).all() for tensor in parts(found).values())
    assert any(
        tensor.shape[1:] != parts(images)[name].shape[1:] or apart(tensor, parts(images)[name][:2]) > CLOSE
        for name, tensor in parts(found).items()
    ), "the size was ignored"
    if "patches" in encoder.gives:
        cell = encoder.preprocess(items(1)[0])[0].numel() ** 0.5 / 3**0.5 / images.grid[0]
        assert found.grid == (round(size[0] / cell), round(size[1] / cell))
        assert {len(patches[0]) for patches in found.patches.values()} == {found.grid[0] * found.grid[1]}
        for view, (left, top, right, bottom) in zip(views, found.area_N4.tolist(), strict=True):
            assert 0 <= left < right <= view.open().width
            assert 0 <= top < bottom <= view.open().height
            if left or top:  # a centre crop has the shape of the input
                assert (right - left) / (bottom - top) == pytest.approx(size[1] / size[0], rel=0.05)


def test_preprocessing_travels_to_workers(encoder):
    assert isinstance(encoder, ImageTextEncoder)
    travelled = pickle.loads(pickle.dumps(encoder._open))
    if not getattr(families.load(encoder.card.family), "OPENS_IMAGES", True):
        return
    (pixels, area), again = encoder.preprocess(items(1)[0]), travelled(items(1)[0])
    assert torch.equal(again[0], pixels)
    assert again[1] == area


def test_identity_is_json_and_knows_the_options(load, encoder):
    assert json.loads(json.dumps(encoder.identity)) is None or len(json.dumps(encoder.identity)) > 2
    assert load().identity == encoder.identity
    for key, value in getattr(families.load(encoder.card.family), "OTHER_OPTIONS", {}).items():
        other = load(**{key: value})
        assert other.identity != encoder.identity
        assert other.weights_hash == encoder.weights_hash


@pytest.mark.slow
def test_metrics_do_not_hang_on_batches_and_workers(model, tmp_path, monkeypatch):
    printed = []
    for at, (batch_size, workers) in enumerate([(256, 0), (5, 0), (7, 2)]):
        monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / f"cache{at}"))
        settings = Settings(tmp_path / f"results{at}", runtime=Runtime("cpu", "float32", batch_size, workers))
        (result,) = evaluate(model, [task()], settings)
        assert result.error is None
        printed.append({name: with_interval(metric) for name, metric in result.record.metrics.items()})
    assert printed[0] == printed[1] == printed[2]


def test_what_a_model_lacks_is_refused_by_name(encoder, tmp_path):
    for card in map(discovery.task, discovery.names("tasks")):
        lacks = discovery.load("protocols", card.protocol).NEEDS - encoder.gives
        if lacks:
            (result,) = evaluate_encoder(encoder, encoder.card, 0, [card], Settings(tmp_path))
            assert f"{card.name} needs {', '.join(sorted(lacks))} of a model, which" in result.error
            assert not list(Path(tmp_path).rglob("*.json"))
            return
    assert encoder.gives >= {"image", "text", "patches"}  # all that today's tasks need
