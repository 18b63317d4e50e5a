"""Holistic CLIP: which branch reads which caption, its losses by hand, its score."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparc_bench.cards.card import parse
from sparc_bench.dataset import Example
from sparc_bench.datasets import scenes1
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.item import ImageItem
from sparc_bench.objective import Ctx, ImageOut, Tokens
from sparc_bench.objectives.clip import contrastive_loss
from sparc_bench.objectives.holistic import HolisticOptions, Objective, branch_contrastive_loss, branch_diversity_loss

KINDS = ("attribute", "count", "relation", "inventory", "full")


def no_tokens(captions):
    ids = torch.zeros(len(captions), len(captions[0]), 1, dtype=torch.long)
    return Tokens(ids, ids.bool(), ids.bool())


def chosen(examples, **options):
    objective = Objective(6, 6, HolisticOptions(dim=4, **options))
    rngs = [np.random.default_rng(row) for row in range(len(examples))]
    batch = objective.collate(examples, range(len(examples)), no_tokens, rngs)
    for example, captions, numbers in zip(examples, batch.captions, batch.extra["caption_index"].tolist(), strict=True):
        assert captions == tuple(example.captions[k] for k in numbers)
    return batch.extra["caption_index"].tolist()


def example(captions, tags=()):
    texts = tuple(f"caption {k}" for k in range(captions))
    return Example("id", ImageItem("id", lambda: None), captions=texts, caption_tags=tags)


def test_a_branch_reads_the_caption_of_its_number():
    assert chosen([example(5), example(7)]) == [[0, 1, 2, 3, 4]] * 2
    assert chosen([example(2)]) == [[0, 1, 0, 1, 0]]


def test_a_branch_reads_its_kind_wherever_it_stands():
    data = scenes1.read(None, "val", scenes1.Options(n=2))
    assert chosen(list(data), caption_kinds=KINDS) == [[0, 1, 2, 3, 4]] * 2
    assert chosen(list(data), caption_kinds=KINDS[::-1]) == [[4, 3, 2, 1, 0]] * 2
    # without its kind a branch reads the caption of its number
    rare = [scenes1.keep_captions(data[0], [1, 4])]
    assert chosen(rare, caption_kinds=KINDS) == [[0, 0, 0, 1, 1]]
    assert chosen(rare) == [[0, 1, 0, 1, 0]]


def test_kinds_that_do_not_fit_are_user_errors():
    with pytest.raises(UserError, match="must name 5 different kinds"):
        parse(HolisticOptions, {"caption_kinds": ["count", "full"]}, "recipe")
    with pytest.raises(UserError, match="name that kind in objective_options"):
        chosen([example(2, ("count", "full"))], branches=2, caption_kinds=("count", "fulll"))
    with pytest.raises(UserError, match="have no tags: leave"):
        chosen([example(2)], branches=2, caption_kinds=("count", "full"))


def test_the_contrast_is_the_mean_of_each_branchs_with_its_own_marks():
    draw = torch.Generator().manual_seed(0)
    branches, captions = torch.randn(4, 3, 6, generator=draw), torch.randn(4, 3, 6, generator=draw)
    known_NNK = torch.zeros(4, 4, 3, dtype=torch.bool)
    known_NNK[0, 1, 2] = known_NNK[3, 0, 0] = True
    each = [contrastive_loss(branches[:, k], captions[:, k], 9.0, known_NNK[..., k]) for k in range(3)]
    ctx = Ctx()
    torch.testing.assert_close(branch_contrastive_loss(branches, captions, 9.0, known_NNK, ctx), sum(each) / 3)
    cosine_KNN = torch.cosine_similarity(branches.movedim(1, 0)[:, :, None], captions.movedim(1, 0)[:, None], dim=-1)
    torch.testing.assert_close(ctx.logits["branches"][0], 9 * cosine_KNN.mean(0))
    torch.testing.assert_close(ctx.logits["branches"][1], 9 * cosine_KNN.mean(0).T)


def test_diversity_takes_the_margin_of_the_mean():
    """Cosines 1 and 0 of two images: mean 0.5, which no margin of each image by itself would give."""
    branches = torch.tensor([[[2.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 3.0]]])
    assert float(branch_diversity_loss(branches, 0.3)) == pytest.approx(0.2)
    assert float(branch_diversity_loss(branches)) == 0.0
    assert float(branch_diversity_loss(branches[:1])) == pytest.approx(0.3)


def test_the_score_is_the_mean_of_the_branches_cosines():
    objective = Objective(6, 6, HolisticOptions(dim=4, branches=3))
    draw = torch.Generator().manual_seed(0)
    image = ImageOut(torch.randn(5, 4, 6, generator=draw), torch.randn(5, 3, 6, generator=draw), (2, 2))
    with torch.no_grad():
        vectors = objective.image_features(image, frozenset({"global", "branches", "patches"}))
    texts = TextFeatures(("",) * 7, torch.randn(7, 4, generator=draw))
    images = ImageFeatures(tuple("abcde"), vectors.global_ND, vectors.branches_NKD, vectors.patches, image.grid)
    scores_NM, _ = objective.similarity(images, texts)
    each_NMK = torch.cosine_similarity(vectors.branches_NKD[:, None], texts.global_MD[None, :, None], dim=-1)
    torch.testing.assert_close(scores_NM, each_NMK.mean(-1))
    torch.testing.assert_close(vectors.global_ND @ torch.nn.functional.normalize(texts.global_MD, dim=-1).T, scores_NM)
    with pytest.raises(RuntimeError, match="ask for 'branches'"):
        objective.similarity(replace(images, branches_NKD=None), texts)
