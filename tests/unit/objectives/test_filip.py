"""FILIP and CLIP + FILIP: both matrices by hand, padding, chunks, token dropping, regions, the score at evaluation."""

import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from sparc_bench.cards.card import parse
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives import clip_filip, filip
from sparc_bench.objectives.filip import FilipOptions, drop_tokens, token_max_loss, token_max_similarity


def unit_pairs(images=5, texts=7, patches=6, tokens=8, dim=4, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    patches_NPD = F.normalize(torch.randn(images, patches, dim, generator=draw, dtype=dtype), dim=-1)
    tokens_MLD = F.normalize(torch.randn(texts, tokens, dim, generator=draw, dtype=dtype), dim=-1)
    words_M1 = torch.randint(1, tokens + 1, (texts, 1), generator=draw)
    return patches_NPD, tokens_MLD, torch.arange(tokens) < words_M1


def outputs(batch=5, grid=(2, 3), tokens=7, seed=0, extra_padding=0):
    draw = torch.Generator().manual_seed(seed)
    patches_BPW = torch.randn(batch, grid[0] * grid[1], 10, generator=draw)
    tokens_BKLW = torch.randn(batch, 1, tokens, 9, generator=draw)
    words_B11 = torch.randint(1, tokens - 1, (batch, 1, 1), generator=draw)
    place_L = torch.arange(tokens)
    mask_BKL, special_BKL = (place_L >= 1) & (place_L <= words_B11), (place_L == 0) | (place_L == words_B11 + 1)
    pooled_BKW = (tokens_BKLW * mask_BKL[..., None]).sum(2) / words_B11
    tokens_BKLW = torch.cat([tokens_BKLW, torch.full((batch, 1, extra_padding, 9), 7.0)], 2)
    more_BKL = torch.zeros(batch, 1, extra_padding, dtype=torch.bool)
    text = TextOut(tokens_BKLW, pooled_BKW, torch.cat([mask_BKL, more_BKL], 2), torch.cat([special_BKL, more_BKL], 2))
    return ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), grid), text


def make(module=filip, **options):
    torch.manual_seed(0)
    return module.Objective(10, 9, module.Objective.Options(dim=8, **options))


def features(objective, image, text):
    need = frozenset({"global", "patches", "tokens"})
    vectors = objective.image_features(image, need)
    global_MD, tokens_MLD = objective.text_features(text, need)
    count = len(image.patches_BPW)
    return (
        ImageFeatures(tuple(map(str, range(count))), vectors.global_ND, patches=vectors.patches, grid=image.grid),
        TextFeatures(("",) * len(tokens_MLD), global_MD, tokens_MLD, text.mask_BKL[:, 0]),
    )


def test_both_matrices_by_hand():
    patches_NPD = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [-1.0, 0.0]]])
    tokens_MLD = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], [[0.0, -1.0], [9.0, 9.0], [9.0, 9.0]]])
    mask_ML = torch.tensor([[True, True, False], [True, False, False]])
    i2t_NM, t2i_NM = token_max_similarity(patches_NPD, tokens_MLD, mask_ML)
    # cosines with text 0: image 0 patches (1, 0.8), (0, 0.6); image 1 patches (0.6, 0.96), (-1, -0.8)
    torch.testing.assert_close(i2t_NM, torch.tensor([[(1 + 0.6) / 2, (0 - 1) / 2], [(0.96 - 0.8) / 2, (-0.8 + 0) / 2]]))
    torch.testing.assert_close(t2i_NM, torch.tensor([[(1 + 0.8) / 2, 0.0], [(0.6 + 0.96) / 2, 0.0]]))


@pytest.mark.parametrize("filling", [0.0, 1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("grad", [False, True])
def test_padding_never_wins_the_maximum(filling, grad):
    # all cosines are negative, so that a padded vector multiplied by zero would win
    patches_NPD = F.normalize(torch.rand(2, 3, 4) + 0.1, dim=-1).requires_grad_(grad)
    tokens_MLD = F.normalize(-torch.rand(3, 5, 4) - 0.1, dim=-1)
    mask_ML = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    filled_MLD = tokens_MLD.masked_fill(~mask_ML.unsqueeze(-1), filling).requires_grad_(grad)
    i2t_NM, t2i_NM = token_max_similarity(patches_NPD, filled_MLD, mask_ML)
    for column, words in enumerate(mask_ML):
        cosine_NPl = patches_NPD @ tokens_MLD[column, words].T
        torch.testing.assert_close(i2t_NM[:, column], cosine_NPl.amax(2).mean(1))
        torch.testing.assert_close(t2i_NM[:, column], cosine_NPl.amax(1).mean(1))
    assert (i2t_NM < 0).all()
    if grad:
        (i2t_NM.sum() + t2i_NM.sum()).backward()
        assert torch.isfinite(patches_NPD.grad).all()
        assert (filled_MLD.grad[~mask_ML] == 0).all()
        assert (filled_MLD.grad[mask_ML] != 0).any(-1).all()


def test_a_text_without_a_word_scores_zero_with_finite_gradients():
    patches_BPD, tokens_BLD = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 5, 4, requires_grad=True)
    mask_BL = torch.tensor([[True] * 5, [False] * 5])
    i2t_NM, t2i_NM = token_max_similarity(patches_BPD.detach(), tokens_BLD.detach(), mask_BL)
    assert (i2t_NM[:, 1] == 0).all()
    assert (t2i_NM[:, 1] == 0).all()
    loss = token_max_loss(patches_BPD, tokens_BLD, mask_BL, 14.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(patches_BPD.grad).all()
    assert torch.isfinite(tokens_BLD.grad).all()


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50])
def test_chunks_equal_the_plain_form_in_value_and_gradient(chunk):
    patches_NPD, tokens_MLD, mask_ML = unit_pairs()
    weight_2NM = torch.randn(2, 5, 7, dtype=torch.float64)

    def run(text_chunk):
        inputs = (patches_NPD.clone().requires_grad_(), tokens_MLD.clone().requires_grad_())
        scores = torch.stack(token_max_similarity(*inputs, mask_ML, text_chunk))
        (scores * weight_2NM).sum().backward()
        return scores.detach(), *(each.grad for each in inputs)

    for chunked, plain in zip(run(chunk), run(None), strict=True):
        torch.testing.assert_close(chunked, plain, atol=1e-10, rtol=0)


def test_scores_and_gradient_are_those_of_the_formula():
    patches_NPD, tokens_MLD, mask_ML = unit_pairs()
    patches_NPD.requires_grad_()
    scores = token_max_similarity(patches_NPD, tokens_MLD, mask_ML)
    weights = [torch.randn(5, 7, dtype=torch.float64) for _ in scores]
    cosine_NMPL = torch.einsum("npd,mld->nmpl", patches_NPD, tokens_MLD)
    expected = (
        cosine_NMPL.masked_fill(~mask_ML[:, None], -9.0).amax(-1).mean(-1),
        (cosine_NMPL.amax(2) * mask_ML).sum(-1) / mask_ML.sum(-1),
    )
    torch.testing.assert_close(scores, expected)
    gradients = [torch.autograd.grad(pair, patches_NPD, weights) for pair in (scores, expected)]
    torch.testing.assert_close(*gradients)
    assert not torch.allclose(*scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_vectors_give_a_finite_loss_and_gradient(dtype):
    patches_BPD = torch.zeros(2, 3, 4, dtype=dtype, requires_grad=True)
    tokens_BLD = torch.zeros(2, 5, 4, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss = token_max_loss(patches_BPD, tokens_BLD, torch.ones(2, 5, dtype=torch.bool), 14.0, text_chunk=1)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), torch.tensor(math.log(2)))
    assert torch.isfinite(patches_BPD.grad).all()
    assert torch.isfinite(tokens_BLD.grad).all()


def test_images_choose_by_one_matrix_and_texts_by_the_other():
    patches_BPD, tokens_BLD, mask_BL = unit_pairs(images=4, texts=4)
    i2t_NM, t2i_NM = token_max_similarity(patches_BPD, tokens_BLD, mask_BL)
    own = torch.arange(4)
    expected = (F.cross_entropy(14 * i2t_NM, own) + F.cross_entropy(14 * t2i_NM.T, own)) / 2
    known_NN = torch.zeros(4, 4, dtype=torch.bool)
    torch.testing.assert_close(token_max_loss(patches_BPD, tokens_BLD, mask_BL, 14.0, 3, known_NN), expected)
    known_NN[0, 2] = True
    assert token_max_loss(patches_BPD, tokens_BLD, mask_BL, 14.0, 3, known_NN) < expected


@dataclass(frozen=True)
class OneOfSeveral(Ctx):
    """A rank that knows what the others hold."""

    everyone: torch.Tensor | None = None

    def gather(self, rows_BX, ragged=False):
        assert ragged
        assert len(rows_BX) == self.counts[self.rank]
        return self.everyone


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_dropping_does_not_depend_on_ranks_or_padding(share):
    image, text = outputs(batch=7)
    patches_NPW, tokens_NLW, mask_NL = image.patches_BPW, text.tokens_BKLW[:, 0], text.mask_BKL[:, 0]

    def generator():
        return torch.Generator().manual_seed(3)

    whole = drop_tokens(patches_NPW, tokens_NLW, mask_NL, share, Ctx(generator=generator()))
    padded_text = outputs(batch=7, extra_padding=4)[1]
    for rank, (start, stop) in enumerate([(0, 3), (3, 7)]):
        ctx = OneOfSeveral(rank, 2, counts=(3, 4), generator=generator(), everyone=mask_NL)
        longest = int(mask_NL[start:stop].any(0).nonzero()[-1]) + 1 + rank  # each rank pads to its own longest
        part = drop_tokens(
            patches_NPW[start:stop], tokens_NLW[start:stop, :longest], mask_NL[start:stop, :longest], share, ctx
        )
        torch.testing.assert_close(part[0], whole[0][start:stop])
        for row in range(stop - start):
            torch.testing.assert_close(part[1][row][part[2][row]], whole[1][start + row][whole[2][start + row]])
    padded = drop_tokens(
        patches_NPW, padded_text.tokens_BKLW[:, 0], padded_text.mask_BKL[:, 0], share, Ctx(generator=generator())
    )
    torch.testing.assert_close(padded, whole)


@pytest.mark.parametrize(("share", "patches", "words"), [(0.2, 5, [4, 2, 1, 1, 0]), (0.99, 1, [1, 1, 1, 1, 0])])
def test_dropping_keeps_the_share_and_one_word_at_least(share, patches, words):
    mask_BL = torch.arange(1, 8) <= torch.tensor([[5], [2], [1], [1], [0]])
    patches_BPW, tokens_BLW = torch.arange(30.0).reshape(5, 6, 1), torch.arange(35.0).reshape(5, 7, 1)
    ctx = Ctx(generator=torch.Generator().manual_seed(0))
    patches_BQW, tokens_BKW, kept_BK = drop_tokens(patches_BPW, tokens_BLW, mask_BL, share, ctx)
    assert patches_BQW.shape == (5, patches, 1)
    assert kept_BK.sum(1).tolist() == words
    for row in range(5):
        kept = tokens_BKW[row, kept_BK[row], 0].tolist()
        assert len(set(kept)) == len(kept)
        assert set(kept) <= set(tokens_BLW[row, mask_BL[row], 0].tolist())
        assert len(set(patches_BQW[row, :, 0].tolist()) & set(patches_BPW[row, :, 0].tolist())) == patches


def test_every_patch_and_word_is_dropped_about_equally_often():
    ctx = Ctx(generator=torch.Generator().manual_seed(0))
    rows = 2000
    patches_BPW, tokens_BLW = (
        torch.arange(10.0).expand(rows, -1)[..., None],
        torch.arange(8.0).expand(rows, -1)[..., None],
    )
    mask_BL = (torch.arange(8) < 5).expand(rows, -1)
    patches_BQW, tokens_BKW, kept_BK = drop_tokens(patches_BPW, tokens_BLW, mask_BL, 0.2, ctx)
    torch.testing.assert_close(
        patches_BQW.long().flatten().bincount() / rows, torch.full((10,), 0.8), atol=0.04, rtol=0
    )
    words = tokens_BKW[kept_BK].long().flatten().bincount() / rows
    torch.testing.assert_close(words, torch.full((5,), 0.8), atol=0.04, rtol=0)


def test_tokens_are_dropped_in_training_only():
    objective, (image, text) = make(token_drop=0.5), outputs()
    plain = make()(image, text, Ctx())["token_max_loss"]
    draws = [
        objective(image, text, Ctx(generator=torch.Generator().manual_seed(seed)))["token_max_loss"] for seed in (0, 1)
    ]
    assert len({float(loss) for loss in (plain, *draws)}) == 3
    torch.testing.assert_close(objective.eval()(image, text, Ctx())["token_max_loss"], plain)
    with pytest.raises(RuntimeError, match="generator"):
        objective.train()(image, text, Ctx())


@pytest.mark.parametrize("options", [{"image_head": "gelu"}, {"token_drop": 1.0}, {"text_chunk": 0}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(UserError, match=f"'{next(iter(options))}'"):
        parse(FilipOptions, options, "recipe")


def test_the_score_at_evaluation_is_the_trained_one(monkeypatch):
    monkeypatch.setattr(filip, "_IMAGES_AT_ONCE", 2)
    monkeypatch.setattr(filip, "_TEXTS_AT_ONCE", 3)
    objective, ctx = make(), Ctx()
    objective(*outputs(), ctx)
    image, text = outputs(extra_padding=6)
    i2t_NM, t2i_NM = objective.similarity(*features(objective, image, text))
    per_image_BN, per_text_BN = ctx.logits["token_max"]
    torch.testing.assert_close(objective.scale.detach() * i2t_NM, per_image_BN)
    torch.testing.assert_close(objective.scale.detach() * t2i_NM.T, per_text_BN)


def test_regions(monkeypatch):
    monkeypatch.setattr(filip, "_TEXTS_AT_ONCE", 3)
    objective = make()
    images, texts = features(objective, *outputs())
    whole = Regions(torch.full((5, 6), 1 / 6), torch.arange(5))
    for of_regions, of_images in zip(
        objective.similarity(images, texts, whole), objective.similarity(images, texts), strict=True
    ):
        torch.testing.assert_close(of_regions, of_images)

    weights_RP = torch.tensor([[0, 0.25, 0.75, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0.5, 0, 0, 0.5]])
    i2t_RM, t2i_RM = objective.similarity(images, texts, Regions(weights_RP, torch.tensor([3, 0, 3])))
    cosine_RPML = torch.einsum(
        "rpd,mld->rpml",
        F.normalize(images.patches["local"][[3, 0, 3]], dim=-1),
        F.normalize(texts.tokens_MLD, dim=-1),
    )
    best_RPM = cosine_RPML.masked_fill(~texts.mask_ML, -9.0).amax(-1)
    torch.testing.assert_close(i2t_RM, (weights_RP[..., None] * best_RPM).sum(1))
    in_region_RML = cosine_RPML.masked_fill((weights_RP == 0)[..., None, None], -9.0).amax(1)
    torch.testing.assert_close(t2i_RM, (in_region_RML * texts.mask_ML).sum(-1) / texts.mask_ML.sum(-1))


def test_dense_scores_are_those_of_one_patch_regions(monkeypatch):
    monkeypatch.setattr(filip, "_IMAGES_AT_ONCE", 2)
    objective = make()
    images, texts = features(objective, *outputs())
    dense_NMHW = objective.dense_scores(images, texts)
    assert dense_NMHW.shape == (5, 5, 2, 3)
    for patch in range(6):
        one = Regions(torch.eye(6)[patch].expand(5, 6), torch.arange(5))
        torch.testing.assert_close(dense_NMHW.flatten(2)[..., patch], objective.similarity(images, texts, one)[0])


def test_vectors_for_probes_are_means_of_unit_patches_and_words():
    objective, (image, text) = make(), outputs(extra_padding=3)
    images, texts = features(objective, image, text)
    torch.testing.assert_close(images.global_ND, F.normalize(images.patches["local"], dim=-1).mean(1))
    for row, words in enumerate(texts.mask_ML):
        torch.testing.assert_close(texts.global_MD[row], F.normalize(texts.tokens_MLD[row, words], dim=-1).mean(0))
    assert set(images.patches) == set(objective.paths)


def test_clip_filip_is_the_weighted_sum_and_scores_by_global_cosine():
    objective, (image, text), ctx = make(clip_filip, global_weight=0.5, token_max_weight=2.0), outputs(), Ctx()
    with torch.no_grad():
        objective.log_token_max_scale.fill_(math.log(5.0))
    figures = objective(image, text, ctx)
    torch.testing.assert_close(figures["loss"].detach(), 0.5 * figures["global_loss"] + 2.0 * figures["token_max_loss"])
    alone = token_max_loss(
        objective.g_v(image.patches_BPW), objective.g_t(text.tokens_BKLW[:, 0]), text.mask_BKL[:, 0], 5.0
    )
    torch.testing.assert_close(figures["token_max_loss"], alone.detach())
    i2t_NM, t2i_NM = objective.similarity(*features(objective, image, text))
    assert objective.scored_as == ("global",)
    torch.testing.assert_close(objective.scale.detach() * i2t_NM, ctx.logits["global"][0])
    assert i2t_NM is t2i_NM


def test_clip_filip_keeps_both_temperatures_in_bounds():
    objective = make(clip_filip)
    with torch.no_grad():
        objective.log_scale.fill_(9.0)
        objective.log_token_max_scale.fill_(9.0)
    objective.after_step(0)
    torch.testing.assert_close(torch.stack([objective.scale, objective.token_max_scale]), torch.full((2,), 100.0))
