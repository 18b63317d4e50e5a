"""Every protocol refuses vectors, scores and detections that are not finite, in whatever way they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.dataset import Example, Examples
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate_encoder
from sparc_bench.facets import Corruptions
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.features import Detections, ImageFeatures, unit
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from sparc_bench.models.finite_encoder import FiniteEncoder
from sparc_bench.protocol import Outcome
from sparc_bench.protocols import classification_corruptions, detection, retrieval_rerank
from tests.contract import test_dense_protocols as dense
from tests.contract import test_image_protocols as whole
from tests.contract import test_probes as probes
from tests.toys.cached import TinyEncoder
from tests.toys.cached import split_of as cached_split
from tests.toys.encoders import LookupEncoder, blank, item, noise, split_of
from tests.toys.photo_task import photo_task

WIDTH = 8


def version(name: str, corruption: str, severity: int) -> ImageItem:
    return item(f"{corruption}{severity} {name}")


class Detector(LookupEncoder):
    """One detection in each image, of the first class."""

    odd: float = 0.5

    def detect(self, views, texts):  # noqa: ARG002
        many = len(views)
        score_R = torch.full((many,), 0.5)
        score_R[-1] = self.odd
        zero_R = torch.zeros(many, dtype=torch.long)
        return Detections(torch.arange(many), zero_R, torch.tensor([[0.0, 0.0, 4.0, 4.0]] * many), score_R)


def rerank(encoder: LookupEncoder, data: Examples) -> Outcome:
    return outcome_of(retrieval_rerank, encoder, data, retrieval_rerank.Options(ks=(1,), candidates=5, ties="expected"))


def corrupted(encoder: LookupEncoder, data: Examples) -> Outcome:
    versions = [
        Example(f"{i}", item(f"{i}"), label=i % 2, facets=(Corruptions(partial(version, f"{i}")),))
        for i in range(len(data))
    ]
    options = classification_corruptions.Options(
        prompts="bare", classes="own", severities=(1,), baseline_error={"blur": 0.5}, ties="expected"
    )
    return outcome_of(classification_corruptions, encoder, split_of(versions, classes=("cat", "dog")), options)


Run = Callable[[Any, Examples], Outcome]
CASES: dict[str, tuple[str, Run, Examples]] = {
    **{name: (name, case.run, case.data(24)) for name, case in whole.CASES.items()},
    **{
        name: (protocol.__name__.rpartition(".")[2], lambda e, d, p=protocol, o=options: outcome_of(p, e, d, o), None)
        for name, (protocol, options) in dense.CASES.items()
    },
    "linear probe": ("linear_probe", probes.linear, probes.probed()),
    "k nearest neighbours": ("knn", probes.neighbours, probes.probed()),
    "re-ranked": ("retrieval_rerank", rerank, whole.captioned(12)),
    "corruptions": ("classification_corruptions", corrupted, whole.labelled(24)),
}
CASES = {name: (of, run, dense.dense_split(8) if data is None else data) for name, (of, run, data) in CASES.items()}
DENSE = [
    name for name, (of, _, _) in CASES.items() if of in ("segmentation", "regions", "oracle_boxes", "word_grounding")
]
PROBES = ["linear probe", "k nearest neighbours"]


def encoder(images: float = 1.0, texts: float = 1.0, patches: float = 1.0, **about: Any) -> LookupEncoder:
    """Random vectors, times these factors: NaN and infinity spoil them, a large one lets squares overflow."""
    return LookupEncoder(
        lambda image_id: images * noise(image_id, WIDTH),
        lambda text: texts * noise(text, WIDTH),
        patch_vectors=lambda path, image_id: patches * noise(f"{path} {image_id}", 16 * WIDTH).reshape(16, WIDTH),
        size=dense.SIDE,
        **about,
    )


def spoiled(name: str, **factors: float) -> LookupEncoder:
    return encoder(**factors, prompt_ensemble="scores" if name == "re-ranked" else "embeddings")


def test_every_protocol_is_here():
    named = {of for of, _, _ in CASES.values()} | {"detection"}
    captions = {"open_captions"}
    assert named | captions >= set(discovery.names("protocols"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", CASES)
def test_vectors_of_images_are_refused(name: str, bad: float):
    _, run, data = CASES[name]
    found = spoiled(name, patches=bad) if name in DENSE else spoiled(name, images=bad)
    kind = "patch vectors" if name in DENSE else "vectors"
    with pytest.raises(UserError, match=rf"^lookup gives {kind}.* of \d+ of \d+ images that are not finite .*MODEL"):
        run(FiniteEncoder(found), data)


@pytest.mark.parametrize("name", sorted(set(CASES) - set(PROBES)))
def test_vectors_of_texts_are_refused(name: str):
    _, run, data = CASES[name]
    with pytest.raises(UserError, match=r"vectors of \d+ of \d+ texts that are not finite .* such as '"):
        run(FiniteEncoder(spoiled(name, texts=np.nan)), data)


@pytest.mark.parametrize("name", sorted(set(CASES) - set(PROBES)))
def test_scores_are_refused(name: str):
    _, run, data = CASES[name]
    large = {"images": 1e30, "patches": 1e30, "texts": 1e30}  # each vector is finite, no product is
    with pytest.raises(UserError, match=r"scores of \d+ of \d+ (images|regions).* that are not finite"):
        run(FiniteEncoder(spoiled(name, **large)), data)


def test_detections_are_refused():
    found = Detector(lambda _: np.zeros(1), lambda _: np.zeros(1), gives=frozenset({"image", "text", "detect"}))
    views, texts = [View(item("a")), View(item("b"))], found.texts(["cat"], frozenset())
    assert len(FiniteEncoder(found).detect(views, texts).score_R) == 2
    found.odd = np.nan
    with pytest.raises(UserError, match=r"scores of 1 of 2 detections that are not finite .* in image 'b'"):
        FiniteEncoder(found).detect(views, texts)
    assert {"detect"} <= detection.NEEDS


def test_one_odd_image_is_counted_and_named():
    found = encoder()
    found.image_vector = lambda image_id: np.full(WIDTH, np.nan) if image_id == "i7" else noise(image_id, WIDTH)
    _, run, data = CASES["classification"]
    with pytest.raises(UserError, match=r"vectors of 1 of 24 images .* such as 'i7'"):
        run(FiniteEncoder(found), data)


@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        ((None, None), "lookup gives no vectors of images: fill in global_ND"),
        ((torch.ones(1, 4), None), "lookup gives vectors of 1 images where it was shown 2: return one row for each"),
        ((torch.ones(2, 4), torch.ones(2, 3)), "vectors of 4 numbers for some images and of 3 for others"),
    ],
)
def test_vectors_that_are_missing_or_of_another_width_are_refused(vectors: tuple[Any, ...], sentence: str):
    inner = encoder()
    inner.stream = lambda *_: (ImageFeatures(("a", "b"), each) for each in vectors)
    with pytest.raises(UserError, match=sentence):
        list(FiniteEncoder(inner).stream([], frozenset({"global"})))


def test_texts_that_are_missing_are_refused():
    inner = encoder()
    one = inner.texts(["one"], frozenset({"global"}))
    inner.texts = lambda *_: one
    with pytest.raises(UserError, match="lookup gives vectors of 1 texts where it was asked for 2: return one row"):
        FiniteEncoder(inner).texts(["one", "two"], frozenset({"global"}))


def test_areas_of_the_patch_grid_are_refused():
    area_24 = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, torch.nan, 4.0, 4.0]])
    found = ImageFeatures(("a", "b"), None, None, {"local": torch.ones(2, 1, WIDTH)}, (1, 1), area_24)
    inner = encoder()
    inner.stream = lambda *_: iter([found])
    with pytest.raises(UserError, match=r"areas of the patch grid of 1 of 2 images that are not finite .* such as 'b'"):
        FiniteEncoder(inner).images([View(item("a")), View(item("b"))], frozenset({"patches"}))


def test_padding_of_tokens_may_be_anything():
    tiny = TinyEncoder()
    inner = tiny.encode_texts

    def padded(texts, need):
        found = inner(texts, need)
        return replace(found, tokens_MLD=found.tokens_MLD.masked_fill(~found.mask_ML.unsqueeze(2), torch.nan))

    tiny.encode_texts = padded
    FiniteEncoder(tiny).texts(["a b", "c"], frozenset({"tokens"}))


@pytest.fixture
def task(tmp_path) -> TaskCard:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            blank().save(tmp_path / "photos" / name / f"{number}.png")
    return photo_task("photos")


class Overflows(TinyEncoder):
    """A model whose forward pass overflows."""

    def encode_pixels(self, pixels, need):
        found = super().encode_pixels(pixels, need)
        return ImageFeatures(found.ids, found.global_ND * torch.inf if found.global_ND is not None else None)

    def untrained(self):
        return Overflows(weights="untrained, seed 0")


@pytest.mark.parametrize("mode", ["off", "vectors", "full"])
def test_an_evaluation_refuses_them_and_the_cache_keeps_none(mode, task: TaskCard, tmp_path):
    settings = Settings(results=tmp_path / "results", data_root=tmp_path, cache=mode)
    for _ in range(2):
        model = Overflows()
        (result,) = evaluate_encoder(model, model.card, 0, [task], settings)
        assert result.record is None
        assert result.error.startswith("tiny gives vectors of 6 of 6 images that are not finite")
        assert (6, frozenset({"global"})) in model.encoded  # computed again: nothing was kept
    assert not list((tmp_path / "results").rglob("*.json"))


def test_the_untrained_towers_are_checked_too(task: TaskCard, tmp_path):
    model = TinyEncoder()
    model.untrained = lambda: Overflows(weights="untrained, seed 0")
    untrained = task.model_copy(update={"reference_rows": ("untrained",)})
    (result,) = evaluate_encoder(model, model.card, 0, [untrained], Settings(tmp_path / "results", tmp_path))
    assert "not finite" in result.error


def test_the_cache_keeps_finite_ones_beside(tmp_path):
    data, model = cached_split(4, tmp_path / "log"), TinyEncoder()
    cache = FeatureCache("full")
    FiniteEncoder(cache.around(model, data)).images(data.views, frozenset({"global"}))
    FiniteEncoder(cache.around(model, data)).images(data.views, frozenset({"global"}))
    assert len(model.encoded) == 1


@pytest.mark.parametrize("factor", [1e30, 1e-30, 3e38 / 8])
def test_vectors_of_any_length_have_the_same_direction(factor: float):
    vectors_ND = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)).double()
    long_ND = (vectors_ND * factor).float()
    torch.testing.assert_close(unit(long_ND), unit(vectors_ND).float(), rtol=1e-5, atol=1e-6)
    assert unit(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2
    mixed_ND = torch.cat([vectors_ND.float(), long_ND])
    assert torch.equal(unit(mixed_ND)[:5], torch.nn.functional.normalize(vectors_ND.float(), dim=-1))
