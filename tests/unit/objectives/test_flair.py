"""FLAIR: its pooling beside torch's attention, its losses by hand, regions and dense scores."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparc_bench.cards.card import parse
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives.flair import (
    AttentionPool,
    FlairOptions,
    Objective,
    conditioned_loss,
    multi_caption_loss,
    zero_slot_attention,
)
from sparc_bench.objectives.siglip import sigmoid_loss

B, K, P, W, D = 5, 3, 6, 10, 8


def flair(**options):
    torch.manual_seed(0)
    made = Objective(W, W, FlairOptions(dim=D, heads=2, captions=K, **options)).double()
    with torch.no_grad():  # biases that matter
        for parameter in made.pool.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def outputs(captions=K):
    draw = torch.Generator().manual_seed(1)
    patches_BPW = torch.randn(B, P, W, generator=draw, dtype=torch.float64)
    tokens_BKLW = torch.randn(B, captions, 4, W, generator=draw, dtype=torch.float64)
    mask_BKL = torch.ones(B, captions, 4, dtype=torch.bool)
    return (
        ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), (2, 3)),
        TextOut(tokens_BKLW, tokens_BKLW.mean(2), mask_BKL, ~mask_BKL),
    )


def features(objective):
    image, text = outputs()
    vectors = objective.image_features(image, frozenset({"patches"}))
    texts_MD = objective.global_text(text).flatten(0, 1).detach()
    images = ImageFeatures(tuple(map(str, range(B))), patches={"local": vectors.patches["local"].detach()}, grid=(2, 3))
    return images, TextFeatures(("",) * len(texts_MD), texts_MD)


def plain_score(objective, patches_PD, text_D):
    """One image and one text, through torch's own attention."""
    pool = objective.pool
    attention = nn.MultiheadAttention(D, 2, add_zero_attn=True, batch_first=True).double()
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([each.weight for each in (pool.query, pool.key, pool.value)]))
        attention.in_proj_bias.copy_(torch.cat([each.bias for each in (pool.query, pool.key, pool.value)]))
        attention.out_proj.weight.copy_(pool.out.weight)
        attention.out_proj.bias.copy_(pool.out.bias)
        query_1D, keys_PD = pool.text_norm(text_D[None]), pool.patch_norm(patches_PD)
        pooled_1D, _ = attention(query_1D[None], keys_PD[None], keys_PD[None])
        return F.cosine_similarity(pooled_1D[0, 0], text_D, dim=0)


@torch.no_grad()
def test_the_score_is_that_of_torchs_attention_with_a_zero_slot():
    objective = flair()
    images, texts = features(objective)
    scores_NM, same_NM = objective.similarity(images, texts)
    assert scores_NM is same_NM
    for n, m in ((0, 0), (4, 2), (2, 14)):
        torch.testing.assert_close(
            scores_NM[n, m], plain_score(objective, images.patches["local"][n], texts.global_MD[m])
        )


@torch.no_grad()
def test_a_region_is_scored_as_an_image_of_its_patches_alone():
    objective = flair()
    images, texts = features(objective)
    weights_RP = torch.zeros(3, P, dtype=torch.float64)
    weights_RP[0, [1, 4]] = 0.5
    weights_RP[1] = 1 / P
    weights_RP[2, 3] = 1.0
    image_index_R = torch.tensor([2, 0, 1])
    scores_RM, _ = objective.similarity(images, texts, Regions(weights_RP, image_index_R))
    for region, kept in enumerate(([1, 4], list(range(P)), [3])):
        patches_PD = images.patches["local"][image_index_R[region]][kept]
        expected = plain_score(objective, patches_PD, texts.global_MD[7])
        torch.testing.assert_close(scores_RM[region, 7], expected)


@torch.no_grad()
def test_weights_of_a_region_enter_as_log_prior():
    """Weights 2 and 1: the second patch counts half of the first, the slot as much as the first."""
    draw = torch.Generator().manual_seed(2)
    queries, keys, values = (torch.randn(1, 2, n, 4, generator=draw) for n in (3, 2, 2))
    pooled = zero_slot_attention(queries, keys, values, torch.tensor([[2.0, 1.0]]))
    scores = torch.einsum("bhqe,bhpe->bhqp", queries, keys) / 2
    shares = torch.tensor([1.0, 0.5]) * scores.exp()
    by_hand = torch.einsum("bhqp,bhpe->bhqe", shares / (1 + shares.sum(-1, keepdim=True)), values)
    torch.testing.assert_close(pooled, by_hand)


@torch.no_grad()
def test_dense_scores_are_those_of_single_patches():
    objective = flair()
    images, texts = features(objective)
    dense_NMHW = objective.dense_scores(images, texts)
    assert dense_NMHW.shape == (B, B * K, 2, 3)
    one = Regions(torch.eye(P, dtype=torch.float64), torch.full((P,), 3))
    scores_PM, _ = objective.similarity(images, texts, one)
    torch.testing.assert_close(dense_NMHW[3].flatten(1).T, scores_PM)


@torch.no_grad()
@pytest.mark.parametrize("at_once", [(1, 1), (2, 100), (64, 1 << 20)])
def test_the_size_of_the_pieces_changes_no_score(monkeypatch, at_once):
    objective = flair()
    images, texts = features(objective)
    expected = objective.similarity(images, texts)[0], objective.dense_scores(images, texts)
    monkeypatch.setattr("sparc_bench.objectives.flair._ROWS_AT_ONCE", at_once[0])
    monkeypatch.setattr("sparc_bench.objectives.flair._WEIGHTS_AT_ONCE", at_once[1])
    torch.testing.assert_close(objective.similarity(images, texts)[0], expected[0])
    torch.testing.assert_close(objective.dense_scores(images, texts), expected[1])


def test_the_losses_are_the_formulas():
    draw = torch.Generator().manual_seed(3)
    own_BK, others_BN = torch.randn(B, K, generator=draw), torch.randn(B, B, generator=draw)
    expected = 0.0
    for i in range(B):
        expected -= sum(F.logsigmoid(own_BK[i, k] - 1) for k in range(K))
        expected -= sum(F.logsigmoid(-(others_BN[i, j] - 1)) for j in range(B) if j != i)
    torch.testing.assert_close(conditioned_loss(own_BK, others_BN, -1.0), expected / (K + B - 1))

    image_BD, captions_BKD = torch.randn(B, D, generator=draw), torch.randn(B, K, D, generator=draw)
    expected = 0.0
    for i in range(B):
        for j in range(B):
            for k in range(K):
                logit = 4 * F.cosine_similarity(image_BD[i], captions_BKD[j, k], dim=0) - 1
                expected -= F.logsigmoid(logit if i == j else -logit)
    torch.testing.assert_close(multi_caption_loss(image_BD, captions_BKD, 4.0, -1.0), expected / (B * K))


def test_with_one_caption_the_global_loss_is_siglips():
    draw = torch.Generator().manual_seed(3)
    image_BD, text_BD = torch.randn(B, D, generator=draw), torch.randn(B, D, generator=draw)
    known_NN = torch.zeros(B, B, dtype=torch.bool)
    known_NN[0, 2] = True
    torch.testing.assert_close(
        multi_caption_loss(image_BD, text_BD[:, None], 7.0, -3.0, known_NN[..., None]),
        sigmoid_loss(image_BD, text_BD, 7.0, -3.0, known_NN),
    )


def test_negatives_are_drawn_captions_and_known_ones_are_left_out():
    """Scores of the drawn captions, one by one; the marks of the drawn captions only."""
    objective = flair()
    image, text = outputs()
    images, texts = features(objective)
    drawn_NN = torch.randint(K, (B, B), generator=torch.Generator().manual_seed(5))
    assert len(drawn_NN.unique()) == K
    with torch.no_grad():
        all_NNK = objective.similarity(images, texts)[0].view(B, B, K) * objective.scale
    sampled_NN = all_NNK.gather(2, drawn_NN[..., None])[..., 0]
    own_BK = all_NNK[torch.arange(B), torch.arange(B)]
    known_NNK = torch.zeros(B, B, K, dtype=torch.bool)
    known_NNK[0, 1, drawn_NN[0, 1]] = True
    known_NNK[2, 4, (drawn_NN[2, 4] + 1) % K] = True
    known_NN = torch.zeros(B, B, dtype=torch.bool)
    known_NN[0, 1] = True
    ctx = Ctx(generator=torch.Generator().manual_seed(5), extra={"known_true": known_NNK})
    figures = objective(image, text, ctx)
    torch.testing.assert_close(ctx.logits["conditioned"][0], sampled_NN)
    torch.testing.assert_close(
        figures["conditioned_loss"], conditioned_loss(own_BK, sampled_NN, objective.bias.detach(), known_NN)
    )


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_chunks_change_neither_value_nor_gradient(chunk):
    results = []
    for text_chunk in (chunk, None):
        objective = flair(text_chunk=text_chunk)
        image, text = outputs()
        image.patches_BPW.requires_grad_()
        loss = objective(image, text, Ctx(generator=torch.Generator().manual_seed(5)))["loss"]
        results.append((loss, *torch.autograd.grad(loss, [image.patches_BPW, *objective.parameters()])))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)


def test_nothing_as_large_as_images_times_texts_times_patches_is_kept():
    """What the forward pass saves for the backward pass grows with pairs, not with pairs times patches."""

    def saved(patches, text_chunk):
        objective = flair(text_chunk=text_chunk)
        draw = torch.Generator().manual_seed(1)
        patches_BPW = torch.randn(24, patches, W, generator=draw, dtype=torch.float64)
        _, text = outputs()
        text = TextOut(
            *(getattr(text, name).repeat(5, *[1] * (getattr(text, name).ndim - 1))[:24] for name in vars(text))
        )
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            objective(ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), (1, patches)), text, Ctx())
        return max(sizes)

    assert saved(40, 4) < 24 * 24 * 40


def test_heads_that_do_not_divide_the_width_are_a_user_error():
    with pytest.raises(UserError, match=r"heads \(3\) must divide dim \(8\)"):
        parse(FlairOptions, {"dim": 8, "heads": 3}, "recipe")


def test_the_pooling_is_finite_for_zero_vectors():
    pool = AttentionPool(D, 2)
    zeros = torch.zeros(1, P, D, requires_grad=True)
    F.normalize(pool.pooled(pool.queries(zeros), *pool.keys_and_values(zeros)), dim=-1, eps=1e-6).sum().backward()
    assert torch.isfinite(zeros.grad).all()
