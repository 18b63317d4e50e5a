"""PACL: the score by hand, each pair its own pooled vector, chunks, regions, the score at evaluation."""

import math

import pytest
import torch
import torch.nn.functional as F

from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives import pacl
from sparc_bench.objectives.pacl import patch_pooled_loss, patch_pooled_similarity


def unit_pairs(images=5, texts=7, patches=6, dim=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (
        F.normalize(torch.randn(images, patches, dim, generator=draw, dtype=torch.float64), dim=-1),
        F.normalize(torch.randn(texts, dim, generator=draw, dtype=torch.float64), dim=-1),
    )


def outputs(batch=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    patches_BPW, tokens_BKLW = torch.randn(batch, 6, 10, generator=draw), torch.randn(batch, 1, 4, 9, generator=draw)
    mask_BKL = torch.ones(batch, 1, 4, dtype=torch.bool)
    text = TextOut(tokens_BKLW, tokens_BKLW.mean(2), mask_BKL, torch.zeros_like(mask_BKL))
    return ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), (2, 3)), text


def make(**options):
    torch.manual_seed(0)
    return pacl.Objective(10, 9, pacl.PaclOptions(dim=8, **options))


def features(objective, image, text):
    need = frozenset({"global", "patches"})
    vectors = objective.image_features(image, need)
    assert vectors.global_ND is None
    ids = tuple(map(str, range(len(image.patches_BPW))))
    global_MD, _ = objective.text_features(text, need)
    return (
        ImageFeatures(ids, patches=vectors.patches, grid=image.grid),
        TextFeatures(("",) * len(global_MD), global_MD),
    )


def test_score_by_hand():
    patches_NPD = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    text_MD = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    first = math.e / (math.e + 1)  # softmax of the cosines 1 and 0
    pooled = math.hypot(first, 1 - first)
    # the second text has the cosines 0 and -1, so the same weights, and likes the second component less
    expected = torch.tensor([[first / pooled, -(1 - first) / pooled]])
    torch.testing.assert_close(patch_pooled_similarity(patches_NPD, text_MD), expected)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("weighted", [False, True])
def test_chunks_equal_the_plain_form_in_value_and_gradient(chunk, weighted):
    weight_NM = torch.randn(5, 7, dtype=torch.float64)
    weights_NP = torch.rand(5, 6, dtype=torch.float64) if weighted else None

    def run(text_chunk):
        inputs = tuple(each.requires_grad_() for each in unit_pairs())
        sim_NM = patch_pooled_similarity(*inputs, text_chunk, weights_NP)
        (sim_NM * weight_NM).sum().backward()
        return sim_NM.detach(), *(each.grad for each in inputs)

    for chunked, plain in zip(run(chunk), run(None), strict=True):
        torch.testing.assert_close(chunked, plain, atol=1e-10, rtol=0)


@pytest.mark.parametrize("chunk", [None, 3])
def test_every_pair_has_its_own_pooled_vector(chunk):
    patches_NPD, text_MD = unit_pairs(images=4, texts=4)
    sim_NM = patch_pooled_similarity(patches_NPD, text_MD, chunk)
    for row in range(4):
        for column in range(4):
            alone = patch_pooled_similarity(patches_NPD[row : row + 1], text_MD[column : column + 1])
            torch.testing.assert_close(sim_NM[row, column], alone[0, 0])
    # a vector pooled for the matched text and used again for the negatives is another score off the diagonal
    attention_NP = torch.einsum("npd,nd->np", patches_NPD, text_MD).softmax(1)
    leaking_NM = F.normalize(torch.einsum("np,npd->nd", attention_NP, patches_NPD), dim=-1) @ text_MD.T
    torch.testing.assert_close(leaking_NM.diagonal(), sim_NM.diagonal())
    off_diagonal = ~torch.eye(4, dtype=torch.bool)
    assert ((leaking_NM - sim_NM).abs()[off_diagonal] > 1e-4).all()


def test_weights_multiply_those_of_the_text():
    patches_NPD, text_MD = unit_pairs()
    plain_NM = patch_pooled_similarity(patches_NPD, text_MD)
    equal_NP = torch.full((5, 6), 1 / 6, dtype=torch.float64)
    torch.testing.assert_close(patch_pooled_similarity(patches_NPD, text_MD, weights_NP=equal_NP), plain_NM)
    weights_NP = torch.tensor([0.0, 0.25, 0.5, 0.25, 0.0, 0.0], dtype=torch.float64).expand(5, -1)
    repeated_NM = patch_pooled_similarity(patches_NPD[:, [1, 2, 2, 3]], text_MD)
    torch.testing.assert_close(patch_pooled_similarity(patches_NPD, text_MD, weights_NP=weights_NP), repeated_NM)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_vectors_give_a_finite_loss_and_gradient(dtype):
    patches_BPD = torch.zeros(2, 3, 4, dtype=dtype, requires_grad=True)
    text_BD = torch.zeros(2, 4, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss = patch_pooled_loss(patches_BPD, text_BD, 14.0, text_chunk=1)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), torch.tensor(math.log(2)))
    assert torch.isfinite(patches_BPD.grad).all()
    assert torch.isfinite(text_BD.grad).all()


def test_a_pair_that_is_known_to_be_true_is_no_negative():
    patches_BPD, text_BD = unit_pairs(images=4, texts=4)
    known_NN = torch.zeros(4, 4, dtype=torch.bool)
    plain = patch_pooled_loss(patches_BPD, text_BD, 14.0, known_true_NN=known_NN)
    known_NN[0, 2] = True
    assert patch_pooled_loss(patches_BPD, text_BD, 14.0, known_true_NN=known_NN) < plain


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_score_at_evaluation_is_the_trained_one(monkeypatch, chunk):
    monkeypatch.setattr(pacl, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr(pacl, "_TEXTS_AT_ONCE", 3)
    objective, ctx = make(text_chunk=chunk), Ctx()
    objective(*outputs(), ctx)
    i2t_NM, t2i_NM = objective.similarity(*features(objective, *outputs()))
    per_image_BN, per_text_BN = ctx.logits["patch_pooled"]
    torch.testing.assert_close(objective.scale.detach() * i2t_NM, per_image_BN)
    torch.testing.assert_close(objective.scale.detach() * t2i_NM.T, per_text_BN)


def test_regions_and_dense_scores(monkeypatch):
    monkeypatch.setattr(pacl, "_ROWS_AT_ONCE", 2)
    objective = make()
    images, texts = features(objective, *outputs())
    whole = Regions(torch.full((5, 6), 1 / 6), torch.arange(5))
    torch.testing.assert_close(objective.similarity(images, texts, whole), objective.similarity(images, texts))
    dense_NMHW = objective.dense_scores(images, texts)
    assert dense_NMHW.shape == (5, 5, 2, 3)
    for patch in range(6):
        one = Regions(torch.eye(6)[patch].expand(5, 6), torch.arange(5))
        torch.testing.assert_close(dense_NMHW.flatten(2)[..., patch], objective.similarity(images, texts, one)[0])
    half = Regions(torch.tensor([[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0, 0.5, 0, 0.5]]), torch.tensor([4, 1]))
    patches_NPD, text_MD = F.normalize(images.patches["local"], dim=-1), F.normalize(texts.global_MD, dim=-1)
    expected = [
        patch_pooled_similarity(patches_NPD[4:5, :2], text_MD),
        patch_pooled_similarity(patches_NPD[1:2, [3, 5]], text_MD),
    ]
    torch.testing.assert_close(objective.similarity(images, texts, half)[0], torch.cat(expected))


def test_an_image_has_no_vector_without_a_text():
    objective = make()
    assert "global" not in objective.gives
    assert objective.prompt_ensemble == "scores"
    with pytest.raises(RuntimeError, match="'global'"):
        objective.similarity(features(objective, *outputs())[0], TextFeatures(("",)))


def test_the_vision_embedder_is_a_residual_mlp_of_about_a_million_parameters():
    objective = make()
    patches_BPW = outputs()[0].patches_BPW
    first, _, second = objective.residual
    hidden_BPD = (patches_BPW @ first.weight.T + first.bias).relu()
    expected_BPD = patches_BPW @ objective.g_v.weight.T + hidden_BPD @ second.weight.T + second.bias
    torch.testing.assert_close(objective.embed(patches_BPW), expected_BPD)
    with torch.device("meta"):
        large = pacl.Objective(768, 768, pacl.PaclOptions())
    count = sum(p.numel() for module in (large.g_v, large.residual) for p in module.parameters())
    assert 1.0e6 < count < 1.2e6
