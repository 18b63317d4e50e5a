"""GLoRIA's local score: chunks, padding, length, regions, temperatures, evaluation in bounded memory."""

import math

import pytest
import torch
import torch.nn.functional as F

from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives import gloria
from sparc_bench.objectives.gloria import GloriaOptions, Objective, attention_similarity

DIM = 6


def inputs(images=4, patches=9, words=(5, 2, 7, 1, 3), context=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mask_ML = torch.arange(context) < torch.tensor(words)[:, None]
    return (
        torch.randn(images, patches, DIM, generator=draw),
        torch.randn(len(words), context, DIM, generator=draw),
        mask_ML,
    )


def by_hand(patches_PD, words_LD, divisor=1.0, prior_P=None):
    """One pair, word by word."""
    to_words_PL = (patches_PD @ words_LD.T / divisor).softmax(1)
    total = 0.0
    for word, word_D in enumerate(words_LD):
        weights_P = (4 * to_words_PL[:, word]).exp() * (1 if prior_P is None else prior_P)
        context_D = (weights_P[:, None] * patches_PD).sum(0) / weights_P.sum()
        total += math.exp(5 * float(F.cosine_similarity(context_D, word_D, dim=0)))
    return math.log(total)


def features(images=4, texts=5, context=12, objective=None):
    draw = torch.Generator().manual_seed(3)
    patches_NPW, pooled_N1W = torch.randn(images, 9, 10, generator=draw), torch.randn(images, 1, 10, generator=draw)
    tokens_MLW = torch.randn(texts, context, 8, generator=draw)
    words_M = torch.arange(1, texts + 1)[torch.randperm(texts, generator=draw)]
    place_L = torch.arange(context)
    mask_ML = (place_L >= 1) & (place_L <= words_M[:, None])  # position 0 is BOS
    image = ImageOut(patches_NPW, pooled_N1W, (3, 3))
    text = TextOut(tokens_MLW[:, None], tokens_MLW.mean(1, keepdim=True), mask_ML[:, None], ~mask_ML[:, None])
    need = frozenset({"global", "patches", "tokens"})
    with torch.no_grad():
        vectors = objective.image_features(image, need)
        global_MD, tokens_MLD = objective.text_features(text, need)
    shown = ImageFeatures(
        tuple(map(str, range(images))), vectors.global_ND, patches=dict(vectors.patches), grid=image.grid
    )
    return shown, TextFeatures(("",) * texts, global_MD, tokens_MLD, mask_ML), (image, text)


def make(**options):
    torch.manual_seed(0)
    return Objective(10, 8, GloriaOptions(dim=DIM, **options))


@pytest.mark.parametrize("divisor", [1.0, math.sqrt(DIM)])
def test_the_score_is_that_of_each_pair_word_by_word(divisor):
    patches_NPD, tokens_MLD, mask_ML = inputs()
    scores_NM = attention_similarity(patches_NPD, tokens_MLD, mask_ML, divisor=divisor)
    words = [tokens_LD[mask_L] for tokens_LD, mask_L in zip(tokens_MLD, mask_ML, strict=True)]
    expected = [[by_hand(patches_PD, words_LD, divisor) for words_LD in words] for patches_PD in patches_NPD]
    torch.testing.assert_close(scores_NM, torch.tensor(expected))


@pytest.mark.parametrize("text_chunk", [1, 2, 3, 8])
def test_chunks_change_neither_value_nor_gradient(text_chunk):
    patches_NPD, tokens_MLD, mask_ML = inputs()
    outcomes = []
    for chunk in (None, text_chunk):
        leaves = [patches_NPD.clone().requires_grad_(), tokens_MLD.clone().requires_grad_()]
        scores_NM = attention_similarity(*leaves, mask_ML, divisor=2.0, text_chunk=chunk)
        (scores_NM * torch.arange(20.0).view(4, 5)).sum().backward()
        outcomes.append([scores_NM.detach(), *(leaf.grad for leaf in leaves)])
    for chunked, plain in zip(*outcomes, strict=True):
        torch.testing.assert_close(chunked, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("filling", [0.0, 1e6, float("nan"), float("inf")])
def test_padding_of_any_content_changes_nothing(filling):
    patches_NPD, tokens_MLD, mask_ML = inputs()
    filled_MLD = tokens_MLD.masked_fill(~mask_ML.unsqueeze(-1), filling).requires_grad_()
    patches_NPD.requires_grad_()
    scores_NM = attention_similarity(patches_NPD, filled_MLD, mask_ML, text_chunk=2)
    scores_NM.sum().backward()
    torch.testing.assert_close(scores_NM, attention_similarity(patches_NPD, tokens_MLD, mask_ML))
    assert torch.isfinite(patches_NPD.grad).all()
    assert (filled_MLD.grad[~mask_ML] == 0).all()


def test_a_longer_text_scores_higher():
    """The sum over words makes it so: the same word n times gains log n, whatever the image shows."""
    draw = torch.Generator().manual_seed(1)
    patches_NPD, word_D = torch.randn(1, 1, DIM, generator=draw), torch.randn(DIM, generator=draw)
    mask_ML = torch.arange(8) < torch.tensor([[1], [2], [8]])
    scores_M = attention_similarity(patches_NPD, word_D.expand(3, 8, DIM), mask_ML)[0]
    torch.testing.assert_close(scores_M - scores_M[0], torch.tensor([1.0, 2.0, 8.0]).log())
    patches_NPD, tokens_MLD, _ = inputs(words=(1, 4, 8), context=8)
    by_length_M = attention_similarity(patches_NPD, tokens_MLD[:1].expand(3, -1, -1), mask_ML).mean(0)
    assert by_length_M[0] < by_length_M[1] < by_length_M[2]


def test_zero_vectors_and_texts_without_words_stay_finite():
    patches_NPD = torch.zeros(2, 4, DIM, requires_grad=True)
    tokens_MLD = torch.zeros(3, 5, DIM, requires_grad=True)
    mask_ML = torch.arange(5) < torch.tensor([[3], [0], [5]])
    scores_NM = attention_similarity(patches_NPD, tokens_MLD, mask_ML, text_chunk=2)
    scores_NM.sum().backward()
    torch.testing.assert_close(scores_NM.detach(), torch.tensor([math.log(3), 0.0, math.log(5)]).expand(2, 3))
    assert torch.isfinite(patches_NPD.grad).all()
    assert torch.isfinite(tokens_MLD.grad).all()
    patches_NPD, tokens_MLD, _ = inputs(images=2, words=(3, 0, 5), context=5)
    assert (attention_similarity(patches_NPD, tokens_MLD, mask_ML)[:, 1] == 0).all()


def test_it_runs_in_float32_under_autocast():
    patches_NPD, tokens_MLD, mask_ML = inputs()
    patches_NPD, tokens_MLD = patches_NPD.bfloat16(), tokens_MLD.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        scores_NM = attention_similarity(patches_NPD, tokens_MLD, mask_ML, text_chunk=2)
    assert scores_NM.dtype == torch.float32
    torch.testing.assert_close(scores_NM, attention_similarity(patches_NPD.float(), tokens_MLD.float(), mask_ML))


def test_weights_are_a_prior_of_the_softmax_over_patches():
    patches_NPD, tokens_MLD, mask_ML = inputs()
    even_NP = torch.full((4, 9), 1 / 9)
    plain_NM = attention_similarity(patches_NPD, tokens_MLD, mask_ML)
    torch.testing.assert_close(attention_similarity(patches_NPD, tokens_MLD, mask_ML, weights_NP=even_NP), plain_NM)
    weights_NP = torch.tensor([0.5, 0.3, 0.2, 0, 0, 0, 0, 0, 0]).expand(4, 9)
    scores_NM = attention_similarity(patches_NPD, tokens_MLD, mask_ML, weights_NP=weights_NP)
    words = [tokens_LD[mask_L] for tokens_LD, mask_L in zip(tokens_MLD, mask_ML, strict=True)]
    expected = [[by_hand(patches_PD, words_LD, 1, weights_NP[0]) for words_LD in words] for patches_PD in patches_NPD]
    torch.testing.assert_close(scores_NM, torch.tensor(expected))
    few_NM = attention_similarity(patches_NPD[:, :3], tokens_MLD, mask_ML, weights_NP=weights_NP[:, :3])
    torch.testing.assert_close(scores_NM, few_NM)


@pytest.mark.parametrize(("texts_at_once", "numbers_at_once"), [(2, 1), (3, 200), (64, 2**18)])
def test_evaluation_in_parts_is_the_plain_score(monkeypatch, texts_at_once, numbers_at_once):
    monkeypatch.setattr(gloria, "_TEXTS_AT_ONCE", texts_at_once)
    monkeypatch.setattr(gloria, "_NUMBERS_AT_ONCE", numbers_at_once)
    objective = make()
    images, texts, _ = features(objective=objective)
    local_NM = attention_similarity(
        images.patches["local"], texts.tokens_MLD, texts.mask_ML, divisor=math.sqrt(DIM), text_chunk=None
    )
    cosine_NM = F.cosine_similarity(images.global_ND[:, None], texts.global_MD[None], dim=-1)
    scores_NM, same_NM = objective.similarity(images, texts)
    assert scores_NM is same_NM
    torch.testing.assert_close(scores_NM, (cosine_NM + local_NM) / 2)


def test_regions_and_dense_scores():
    objective = make()
    images, texts, _ = features(objective=objective)
    every_RP = torch.eye(9).repeat(4, 1)
    regions = Regions(every_RP, torch.arange(4).repeat_interleave(9))
    for path in ("local", "global", None):
        of_regions_NPM = objective.similarity(images, texts, regions, path)[0].view(4, 9, 5)
        dense_NMKL = objective.dense_scores(images, texts, path)
        assert dense_NMKL.shape == (4, 5, 3, 3)
        torch.testing.assert_close(dense_NMKL.flatten(2).mT, of_regions_NPM)
    whole = Regions(torch.full((4, 9), 1 / 9), torch.arange(4))
    local_NM = objective.similarity(images, texts, whole, "local")[0]
    plain_NM = attention_similarity(images.patches["local"], texts.tokens_MLD, texts.mask_ML, divisor=math.sqrt(DIM))
    torch.testing.assert_close(local_NM, plain_NM)
    torch.testing.assert_close(objective.similarity(images, texts, whole)[0], local_NM)


@pytest.mark.parametrize(("temperatures", "scale"), [("learned", 1 / 0.07), ("original", 10.0)])
def test_temperatures(temperatures, scale):
    objective = make(temperatures=temperatures)
    _, _, (image, text) = features(images=5, texts=5, objective=objective)
    figures = objective(image, text, Ctx())
    figures["loss"].backward()
    objective.after_step(0)
    torch.testing.assert_close(objective.scale.detach(), torch.tensor(scale))
    assert {name for name, _ in objective.named_parameters()} == {
        "g_v.weight",
        "g_t.weight",
        "h_v.linear.weight",
        "h_v.linear.bias",
        *(["log_scale"] if temperatures == "learned" else []),
    }
    assert all(parameter.grad.any() for parameter in objective.parameters())


def test_the_weights_weigh_and_the_chunk_does_not():
    """Both losses enter with their weights; the local logits are the score times the scale."""
    objective = make(global_weight=0.25, local_weight=3.0, divisor="one")
    images, texts, (image, text) = features(images=5, texts=5, objective=objective)
    ctx = Ctx()
    figures = objective(image, text, ctx)
    torch.testing.assert_close(
        figures["loss"].detach(), 0.25 * figures["global_loss"] + 3 * figures["local_loss"], rtol=1e-5, atol=1e-5
    )
    local_NM = attention_similarity(images.patches["local"], texts.tokens_MLD, texts.mask_ML)
    torch.testing.assert_close(ctx.logits["local"][0], objective.scale.detach() * local_NM)
    torch.testing.assert_close(ctx.logits["local"][1], objective.scale.detach() * local_NM.T)
    labels_B = torch.arange(5)
    logits_BB = ctx.logits["local"][0]
    expected = (F.cross_entropy(logits_BB, labels_B) + F.cross_entropy(logits_BB.T, labels_B)) / 2
    torch.testing.assert_close(figures["local_loss"], expected)


def test_a_known_true_pair_is_no_negative_of_either_loss():
    objective = make()
    _, _, (image, text) = features(images=5, texts=5, objective=objective)
    known_NNK = torch.zeros(5, 5, 1, dtype=torch.bool)
    known_NNK[0, 1] = True
    masked, plain = objective(image, text, Ctx(extra={"known_true": known_NNK})), objective(image, text, Ctx())
    assert masked["global_loss"] < plain["global_loss"]
    assert masked["local_loss"] < plain["local_loss"]
