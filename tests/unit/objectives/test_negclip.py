"""NegCLIP's loss by hand and as its authors write it; which texts a batch holds."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sparc_bench.datasets.scenes1 import Options, read
from sparc_bench.objective import Ctx, ImageOut, TextOut, Tokens
from sparc_bench.objectives.clip import contrastive_loss
from sparc_bench.objectives.negclip import Objective, hard_negative_losses


def vectors(count=5, dim=6):
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(count, dim, generator=draw, dtype=torch.float64) for _ in range(3)]


def test_false_captions_are_negatives_of_images_alone():
    image_BD, text_BD, false_BD = vectors()
    image_loss, text_loss = hard_negative_losses(image_BD, text_BD, false_BD, 10.0)
    v, t, f = (F.normalize(x, dim=-1) for x in (image_BD, text_BD, false_BD))
    labels = torch.arange(5)
    # one block of texts, the false ones behind the true ones; their rows do not count
    logits = 10 * v @ torch.cat([t, f]).T
    torch.testing.assert_close(image_loss, F.cross_entropy(logits, labels))
    torch.testing.assert_close(text_loss, F.cross_entropy(logits.T[:5], labels))


def test_false_captions_far_from_everything_leave_clips_loss():
    image_BD, text_BD, _ = vectors()
    image_BD[:, 0] = text_BD[:, 0] = 4.0
    false_BD = torch.zeros(5, 6, dtype=torch.float64)
    false_BD[:, 0] = -1.0
    image_loss, text_loss = hard_negative_losses(image_BD, text_BD, false_BD, 50.0)
    torch.testing.assert_close((image_loss + text_loss) / 2, contrastive_loss(image_BD, text_BD, 50.0))


def test_known_true_pairs_are_no_negatives_in_either_direction():
    image_BD, text_BD, false_BD = vectors()
    known_NN = torch.zeros(5, 5, dtype=torch.bool)
    known_NN[0, 3] = True
    image_loss, text_loss = hard_negative_losses(image_BD, text_BD, false_BD, 10.0, known_NN)
    v, t, f = (F.normalize(x, dim=-1) for x in (image_BD, text_BD, false_BD))
    true_NN, false_NN = 10 * v @ t.T, 10 * v @ f.T
    rows = [
        torch.cat([true_NN[i, [k for k in range(5) if not known_NN[i, k]]], false_NN[i]]).logsumexp(0) for i in range(5)
    ]
    columns = [true_NN[[i for i in range(5) if not known_NN[i, k]], k].logsumexp(0) for k in range(5)]
    torch.testing.assert_close(image_loss, (torch.stack(rows) - true_NN.diagonal()).mean())
    torch.testing.assert_close(text_loss, (torch.stack(columns) - true_NN.diagonal()).mean())


def test_the_logits_are_those_of_true_captions():
    image_BD, text_BD, false_BD = vectors()
    ctx = Ctx()
    hard_negative_losses(image_BD, text_BD, false_BD, 10.0, ctx=ctx)
    per_image_BN, per_text_BN = ctx.logits["global"]
    expected = 10 * F.normalize(image_BD, dim=-1) @ F.normalize(text_BD, dim=-1).T
    torch.testing.assert_close(per_image_BN, expected)
    torch.testing.assert_close(per_text_BN, expected.T)


def test_text_1_is_the_false_one():
    objective = Objective(6, 6, Objective.Options(dim=8))
    draw = torch.Generator().manual_seed(1)
    patches_BPW, tokens_BKLW = torch.randn(4, 9, 6, generator=draw), torch.randn(4, 2, 3, 6, generator=draw)
    words_BKL = torch.ones(4, 2, 3, dtype=torch.bool)
    image = ImageOut(patches_BPW, patches_BPW.mean(1, keepdim=True), (3, 3))
    text = TextOut(tokens_BKLW, tokens_BKLW.mean(2), words_BKL, ~words_BKL)
    figures = objective(image, text, Ctx())
    image_loss, text_loss = hard_negative_losses(
        objective.global_image(image), *objective.global_text(text).unbind(1), objective.scale
    )
    torch.testing.assert_close(figures["loss"], (image_loss + text_loss) / 2)
    assert image_loss > text_loss


@pytest.fixture(scope="module")
def data():
    return read(None, "train", Options(n=12, negatives=("replace_object", "replace_attribute")))


def test_a_batch_holds_a_caption_and_its_own_negative(data):
    objective = Objective(6, 6, Objective.Options(dim=8))
    said = []

    def tokenize(captions):
        said.extend(captions)
        empty = torch.zeros(len(captions), 2, 0)
        return Tokens(empty.long(), empty.bool(), empty.bool())

    def rngs():
        return [np.random.default_rng((0, row)) for row in range(12)]

    batch = objective.collate(data.examples, range(12), tokenize, rngs())
    index_B1 = batch.extra["caption_index"]
    assert index_B1.shape == (12, 1)
    assert len(set(index_B1.flatten().tolist())) > 1
    assert tuple(said) == batch.captions
    for example, texts, k in zip(data, batch.captions, index_B1[:, 0].tolist(), strict=True):
        assert texts == (example.captions[k], example.negatives[k])
    # the draw of a row does not depend on the rows before it
    part = objective.collate(data.examples[5:], range(5, 12), tokenize, rngs()[5:])
    assert part.captions == batch.captions[5:]
    assert (objective.captions_per_image, objective.negatives_per_image) == (1, 1)
