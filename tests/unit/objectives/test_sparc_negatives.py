"""SPARC's further negatives against slow loops in NumPy, and their edges: words, one pair, known truth, order."""

import numpy as np
import pytest
import torch

from sparc_bench.cards.card import parse
from sparc_bench.errors import UserError
from sparc_bench.objective import Ctx
from sparc_bench.objectives import _sparc_negatives
from sparc_bench.objectives.sparc import Objective, SparcOptions, fine_grained_loss
from tests.toys.tower_outputs import make, outputs

FURTHER = ("captions", "images", "captions_and_images")
ALL = ("caption", *FURTHER)
WORDS = [[1, 1, 1, 0, 1], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]  # the third caption has none


def pairs(dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    patches_BPD = torch.randn(4, 6, 3, generator=draw, dtype=torch.float64).to(dtype)
    tokens_BLD = torch.randn(4, 5, 3, generator=draw, dtype=torch.float64).to(dtype)
    return patches_BPD, tokens_BLD, torch.tensor(WORDS, dtype=torch.bool)


def knowing(*cells):
    """Context in which these cells (image, caption) are true."""
    known = torch.zeros(4, 4, 1, dtype=torch.bool)
    for image, caption in cells:
        known[image, caption] = True
    return Ctx(extra={"known_true": known})


def unit(vector):
    return vector / np.linalg.norm(vector)


def grouped(patches_PD, token_D, rule):
    similarity_P = patches_PD @ token_D
    if rule == "softmax":
        weights_P = np.exp(similarity_P - similarity_P.max())
    else:
        weights_P = (similarity_P - similarity_P.min()) / (similarity_P.max() - similarity_P.min())
        limit = weights_P.sum() / len(weights_P) if rule == "sum_normalised" else 1 / len(weights_P)
        if rule != "dense":
            weights_P = np.where(weights_P >= limit, weights_P, 0)
    return unit((weights_P / weights_P.sum()) @ patches_PD)


def by_hand(patches_BPD, tokens_BLD, mask_BL, scale, negatives, others, known=(), rule="sparse"):
    """The mean over captions, word by word."""
    patches, tokens, mask = (tensor.numpy() for tensor in (patches_BPD, tokens_BLD, mask_BL))
    count, captions = len(patches), []
    for b in range(count):
        words = [k for k in range(mask.shape[1]) if mask[b, k]]
        losses = []
        for l in words:  # noqa: E741 - the docstring's letter
            own = grouped(patches[b], tokens[b, l], rule)
            from_group = [own @ unit(tokens[b, k]) for k in words]
            from_token = [unit(tokens[b, l]) @ grouped(patches[b], tokens[b, k], rule) for k in words]
            if "captions" in negatives:
                for n in range(count):
                    if n != b and mask[n, l] and (b, n) not in known:
                        from_group.append(own @ unit(tokens[n, l]))
                    if n != b and mask[n, l] and (n, b) not in known:
                        from_token.append(unit(tokens[b, l]) @ grouped(patches[n], tokens[n, l], rule))
            if "images" in negatives:
                for n in ((b + shift) % count for shift in range(1, min(others, count - 1) + 1)):
                    if (n, b) not in known:
                        from_token.append(unit(tokens[b, l]) @ grouped(patches[n], tokens[b, l], rule))
            sums = [np.log(np.exp(scale * np.array(logits)).sum()) for logits in (from_group, from_token)]
            losses.append(sum(sums) / 2 - scale * (own @ unit(tokens[b, l])))
        if losses:
            captions.append(np.mean(losses))
    return np.mean(captions)


@pytest.mark.parametrize("negatives", ALL)
@pytest.mark.parametrize("others", [1, 2, 8])
@pytest.mark.parametrize("known", [(), ((0, 1), (3, 0), (1, 2))], ids=["no-truth", "truth"])
def test_word_by_word(negatives, others, known):
    expected = by_hand(*pairs(), 5.0, negatives, others, known)
    found = fine_grained_loss(*pairs(), 5.0, ctx=knowing(*known), negatives=negatives, other_images=others)
    assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rule", ["dense", "softmax", "sum_normalised"])
def test_the_same_weights_group_from_other_images(rule):
    expected = by_hand(*pairs(), 5.0, "images", 3, rule=rule)
    found = fine_grained_loss(*pairs(), 5.0, weights=rule, negatives="images", other_images=3)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_every_choice_gives_another_loss():
    losses = [float(fine_grained_loss(*pairs(), 5.0, negatives=choice, other_images=2)) for choice in ALL]
    losses.append(float(fine_grained_loss(*pairs(), 5.0, negatives="images", other_images=1)))
    assert len({round(loss, 6) for loss in losses}) == len(losses)
    assert losses[0] == min(losses)  # further negatives add to the sums


@pytest.mark.parametrize("negatives", FURTHER)
def test_a_pair_that_is_known_to_be_true_is_no_further_negative(negatives):
    plain = fine_grained_loss(*pairs(), 5.0, negatives=negatives)
    assert fine_grained_loss(*pairs(), 5.0, ctx=knowing((1, 0), (0, 1)), negatives=negatives) < plain


@pytest.mark.slow
@pytest.mark.parametrize("negatives", ALL)
def test_gradients_are_those_of_small_differences(negatives):
    patches_BPD, tokens_BLD, mask_BL = pairs(seed=3)
    scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    ctx = knowing((0, 1))

    def loss(patches_BPD, tokens_BLD, scale):
        return fine_grained_loss(
            patches_BPD, tokens_BLD, mask_BL, scale, ctx=ctx, weights="dense", negatives=negatives, other_images=2
        )

    inputs = (patches_BPD.requires_grad_(), tokens_BLD.requires_grad_(), scale)
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-6, fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 300])
def test_other_images_in_turns_change_neither_loss_nor_gradients(at_once, monkeypatch):
    found = []
    for numbers in (_sparc_negatives._NUMBERS_AT_ONCE, at_once):
        monkeypatch.setattr(_sparc_negatives, "_NUMBERS_AT_ONCE", numbers)
        patches_BPD, tokens_BLD, mask_BL = pairs()
        leaves = (patches_BPD.requires_grad_(), tokens_BLD.requires_grad_())
        loss = fine_grained_loss(patches_BPD, tokens_BLD, mask_BL, 5.0, negatives="images")
        found.append((loss, *torch.autograd.grad(loss, leaves)))
    for whole, in_turns in zip(*found, strict=True):
        torch.testing.assert_close(in_turns, whole)


@pytest.mark.parametrize("negatives", FURTHER)
def test_one_pair_has_no_further_negatives(negatives):
    one = [tensor[:1] for tensor in pairs()]
    torch.testing.assert_close(fine_grained_loss(*one, 5.0, negatives=negatives), fine_grained_loss(*one, 5.0))


@pytest.mark.parametrize("negatives", ALL)
def test_captions_without_a_word_cost_nothing(negatives):
    patches_BPD, tokens_BLD, mask_BL = pairs()
    tokens_BLD.requires_grad_()
    loss = fine_grained_loss(patches_BPD, tokens_BLD, torch.zeros_like(mask_BL), 5.0, negatives=negatives)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not tokens_BLD.grad.any()


@pytest.mark.parametrize("negatives", FURTHER)
@pytest.mark.parametrize("filling", [1e6, float("nan")])
def test_padding_of_any_content_and_length_changes_nothing(negatives, filling):
    patches_BPD, tokens_BLD, mask_BL = pairs()
    plain = fine_grained_loss(patches_BPD, tokens_BLD, mask_BL, 5.0, negatives=negatives)
    filled_BLD = tokens_BLD.masked_fill(~mask_BL.unsqueeze(-1), filling)
    longer_BLD = torch.cat([filled_BLD, torch.full((4, 3, 3), filling, dtype=torch.float64)], 1).requires_grad_()
    longer_BL = torch.cat([mask_BL, torch.zeros(4, 3, dtype=torch.bool)], 1)
    loss = fine_grained_loss(patches_BPD, longer_BLD, longer_BL, 5.0, negatives=negatives)
    loss.backward()
    torch.testing.assert_close(loss.detach(), plain)
    assert (longer_BLD.grad[~longer_BL] == 0).all()
    assert longer_BLD.grad.isfinite().all()


@pytest.mark.parametrize("negatives", FURTHER)
def test_order_of_pairs_changes_nothing_with_all_other_images(negatives):
    order = torch.tensor([2, 0, 3, 1])
    moved = [tensor[order] for tensor in pairs()]
    torch.testing.assert_close(
        fine_grained_loss(*moved, 5.0, negatives=negatives), fine_grained_loss(*pairs(), 5.0, negatives=negatives)
    )


@pytest.mark.parametrize("negatives", FURTHER)
def test_zero_vectors_give_a_finite_loss_and_gradient(negatives):
    leaves = torch.zeros(4, 6, 3, requires_grad=True), torch.zeros(4, 5, 3, requires_grad=True)
    loss = fine_grained_loss(*leaves, torch.tensor(WORDS, dtype=torch.bool), 14.0, negatives=negatives)
    loss.backward()
    assert loss.isfinite()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.parametrize("negatives", FURTHER)
def test_it_runs_in_float32_under_autocast(negatives):
    patches_BPD, tokens_BLD, mask_BL = pairs(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = fine_grained_loss(patches_BPD, tokens_BLD, mask_BL, 5.0, negatives=negatives)
    assert loss.dtype == torch.float32
    plain = fine_grained_loss(patches_BPD.float(), tokens_BLD.float(), mask_BL, 5.0, negatives=negatives)
    torch.testing.assert_close(loss, plain)


@pytest.mark.parametrize("negatives", FURTHER)
def test_the_options_reach_the_loss(negatives):
    losses = {}
    for choice, others in ((negatives, 2), ("caption", 8)):
        options = {"fine_negatives": choice, **({"other_images": others} if "images" in choice else {})}
        objective = make("sparc", **options)
        image, text = outputs(objective)
        known = torch.zeros(6, 6, 1, dtype=torch.bool)
        known[2, 1] = known[0, 4] = True
        ctx = Ctx(extra={"known_true": known})
        losses[choice] = objective(image, text, ctx)["fine_loss"]
        vectors = objective.g_v(image.patches_BPW), objective.g_t(text.tokens_BKLW[:, 0])
        expected = fine_grained_loss(
            *vectors, text.mask_BKL[:, 0], objective.scale, ctx=ctx, negatives=choice, other_images=others
        )
        torch.testing.assert_close(losses[choice], expected.detach())
    assert losses[negatives] > losses["caption"] + 0.1


def test_held_out_figures_have_the_same_negatives_for_all():
    found = []
    for negatives in ALL:
        objective = make("sparc", fine_negatives=negatives, fine_temperature="separate", fine_start_temperature=0.5)
        image, text = outputs(objective)
        grey, _ = outputs(objective, seed=1, batch=1)
        found.append(objective.held_out([(image, grey, text)]))
    assert all(figures == found[0] for figures in found)


def test_the_fine_loss_starts_at_a_temperature_of_its_own():
    options = SparcOptions(dim=8, fine_temperature="separate", fine_start_temperature=0.5, temperature=0.1)
    objective = Objective(6, 6, options)
    assert float(objective.fine_scale.detach()) == pytest.approx(2)
    assert float(objective.scale.detach()) == pytest.approx(10)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"fine_start_temperature": 0.1}, "set fine_temperature = 'separate'"),
        ({"other_images": 8}, "fine_negatives = 'caption' see no other_images"),
        ({"other_images": 4, "fine_negatives": "captions"}, "set fine_negatives = 'images'"),
        ({"other_images": 0, "fine_negatives": "images"}, "greater than or equal to 1"),
    ],
)
def test_options_without_a_use_are_refused(values, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(SparcOptions, values, "test")


def test_later_options_enter_no_dump_at_the_values_that_held_before():
    assert not {"fine_negatives", "other_images", "fine_start_temperature"} & SparcOptions().model_dump().keys()
    dumped = SparcOptions(fine_negatives="images", other_images=3).model_dump(mode="json")
    assert (dumped["fine_negatives"], dumped["other_images"]) == ("images", 3)
