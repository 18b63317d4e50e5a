"""A sound encoder passes; one with a single mistake is caught by the check that is meant for it, and by no other."""

import dataclasses
import hashlib
import re
import tomllib
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from sparc_bench.cards.model_card import ProbeValues
from sparc_bench.errors import UserError
from sparc_bench.verify import probe
from sparc_bench.verify.checks import CHECKS, run_checks
from sparc_bench.verify.model_report import verdict
from sparc_bench.verify.probe_values import measure
from sparc_bench.verify.probed_model import ProbedModel
from tests.toys.verified import (
    CARD,
    CONTEXT,
    GRID,
    SIZE,
    Toy,
    centre_crop,
    jitter,
    letterbox,
    of_one_size,
    preprocess_after,
    squash,
    squash_whole,
    without_antialias,
    without_windows,
)


class Dropout(Toy):
    def patches(self, pixels):
        return F.dropout(super().patches(pixels), 0.1, training=True)


class BatchNorm(Toy):
    def encode_pixels(self, pixels, need):
        features = super().encode_pixels(pixels, need)
        mean_D = features.global_ND.mean(0, keepdim=True)
        return dataclasses.replace(features, global_ND=features.global_ND - 0.5 * mean_D)


class Reordered(Toy):
    """Patches in another order."""

    def __init__(self, place):
        super().__init__()
        self.order = [place(p // GRID, p % GRID) % (GRID * GRID) for p in range(GRID * GRID)]

    def patches(self, pixels):
        return super().patches(pixels)[:, self.order]


class LosesPlaces(Toy):
    """An encoder whose own batches forget windows."""

    def stream(self, groups, need):
        for features in super().stream(groups, need):
            area_N4 = features.area_N4 - features.area_N4[:, :2].repeat(1, 2)
            yield dataclasses.replace(features, area_N4=area_N4)


class NotANumber(Toy):
    def patches(self, pixels):
        return super().patches(pixels) / (pixels.amax((1, 2, 3)) > 0.9)[:, None, None]


class ZeroVectors(Toy):
    def pool(self, tokens_MLD, mask_ML):
        return super().pool(tokens_MLD, mask_ML) * (mask_ML.sum(1, keepdim=True) != 6)


class BlindToImages(Toy):
    def patches(self, pixels):
        return super().patches(torch.zeros_like(pixels))


class OnePixel(Toy):
    """Hardly sees anything."""

    def patches(self, pixels):
        return super().patches(0.01 * pixels)


class BlindToTexts(Toy):
    def pool(self, tokens_MLD, mask_ML):  # noqa: ARG002
        return tokens_MLD[:, 0]


class SmallVocabulary(Toy):
    def words(self, text):
        return [word if len(word) < 7 else "<unknown>" for word in super().words(text)]


class PatchesSpoilTheRest(Toy):
    def encode_pixels(self, pixels, need):
        features = super().encode_pixels(pixels, need)
        return dataclasses.replace(features, global_ND=features.global_ND * (2.0 if "patches" in need else 1.0))


class MixesTexts(Toy):
    def pool(self, tokens_MLD, mask_ML):
        pooled_MD = super().pool(tokens_MLD, mask_ML)
        return pooled_MD - 0.5 * pooled_MD.mean(0, keepdim=True)


class PadsIntoTheMean(Toy):
    def pool(self, tokens_MLD, mask_ML):
        return super().pool(tokens_MLD, mask_ML) * mask_ML.float().mean(1, keepdim=True)


class NotLowered(Toy):
    def words(self, text):
        return (["<start>", *re.findall(r"[^\W_]+|[^\w\s]", text)])[:CONTEXT]


class NoPunctuation(Toy):
    def words(self, text):
        return (["<start>", *re.findall(r"[^\W_]+", text.lower())])[:CONTEXT]


class ShortContext(Toy):
    def words(self, text):
        return super().words(text)[:18]


class Turned(Toy):
    def pool(self, tokens_MLD, mask_ML):
        return super().pool(tokens_MLD, mask_ML).flip(-1)


class Spaced(Toy):
    def words(self, text):
        return ["<start>", *text.lower().replace(".", " .").split(" ")][:CONTEXT]


class RefusesLongTexts(Toy):
    def words(self, text):
        if len(text.split()) > 77:
            raise RuntimeError("Input is too long for context length 77")
        return super().words(text)


class EmptyTextIsNothing(Toy):
    def words(self, text):
        return super().words(text)[1:]


class HalfScores(Toy):
    def similarity(self, images, texts, regions=None, path=None):
        scores = super().similarity(images, texts, regions, path)[0].half().float()
        return scores, scores


class OneMatrix(Toy):
    def similarity(self, images, texts, regions=None, path=None):
        scores = super().similarity(images, texts, regions, path)[0]
        return scores, scores.T


class NoPatchesAfterAll(Toy):
    def encode_pixels(self, pixels, need):
        return dataclasses.replace(super().encode_pixels(pixels, need), patches={}, grid=None)


class Raises(Toy):
    def encode_pixels(self, pixels, need):  # noqa: ARG002
        return F.conv2d(pixels, pixels.new_zeros(1))


class Refuses(Toy):
    def encode_pixels(self, pixels, need):  # noqa: ARG002
        raise UserError("The toy is broken: wind it up.")


class Several(Toy):
    """Images of different shapes of pixels."""

    def __init__(self):
        super().__init__(lambda item, _=None: (torch.zeros(3, 8, item.open().width), (0.0, 0.0, 8.0, 8.0)))


MISTAKES = {
    "dropout": (Dropout(), "determinism", "fail", r"eval\(\)"),
    "batch norm": (BatchNorm(), "image batches", "fail", "batch norm"),
    "transposed": (Reordered(lambda r, c: c * GRID + r), "patch order", "fail", "column by column: transpose"),
    "mirrored": (Reordered(lambda r, c: r * GRID + GRID - 1 - c), "patch order", "fail", "mirrored"),
    "upside down": (Reordered(lambda r, c: (GRID - 1 - r) * GRID + c), "patch order", "fail", "top to bottom"),
    "backwards": (Reordered(lambda r, c: GRID * GRID - 1 - r * GRID - c), "patch order", "fail", "top left"),
    "class token": (Reordered(lambda r, c: r * GRID + c - 1), "patch order", "fail", "drop the class token"),
    "first one lost": (Reordered(lambda r, c: r * GRID + c + 1), "patch order", "fail", "the first one is missing"),
    "shuffled": (Reordered(lambda r, c: 7 * (r * GRID + c) + 3), "patch order", "warning", "order of its patches"),
    "NaN": (NotANumber(), "finite", "fail", "division by zero"),
    "zero vectors": (ZeroVectors(), "finite", "fail", "weights that were not loaded"),
    "one vector for all images": (BlindToImages(), "images differ", "fail", "pixels reach the model"),
    "nearly one vector": (OnePixel(), "images differ", "warning", "hardly told apart"),
    "one vector for all texts": (BlindToTexts(), "texts differ", "fail", "pooled from"),
    "small vocabulary": (SmallVocabulary(), "texts differ", "warning", "tokenizer"),
    "patches change the rest": (PatchesSpoilTheRest(), "asked for", "fail", "beside the global vector"),
    "mixes texts": (MixesTexts(), "text batches", "fail", "mix rows"),
    "padding": (PadsIntoTheMean(), "padding", "fail", "pad every text to the context length"),
    "case": (NotLowered(), "case", "warning", "lower-case the texts"),
    "white space": (Spaced(), "white space", "warning", "strip the texts"),
    "refuses long texts": (RefusesLongTexts(), "long texts", "fail", "cut it in the tokenizer"),
    "no word at all": (EmptyTextIsNothing(), "odd texts", "warning", "start and end tokens"),
    "half precision": (HalfScores(), "ties", "warning", "scores in float32"),
    "wrong matrix": (OneMatrix(), "shapes", "fail", "text-to-image scores 40 x 6 for 6 images and 40 texts"),
    "no patches": (NoPatchesAfterAll(), "shapes", "fail", "paths says plain"),
    "raises": (Raises(), "shapes", "fail", r"Mend test_verify\.py, line \d+, which raised RuntimeError"),
    "refuses": (Refuses(), "shapes", "fail", "wind it up"),
    "logarithm": (Toy(logit_scale=4.6052), "logit scale", "warning", "logarithm of 100"),
    "odd scale": (Toy(logit_scale=0.0), "logit scale", "warning", "loaded whole"),
    "random pixels": (Toy(preprocess_after(jitter)), "pixels", "fail", "transform of evaluation"),
    "several shapes": (Several(), "pixels", "fail", "one size"),
    "own contrast": (Toy(preprocess_after(lambda p: p - p.mean())), "normalisation", "fail", "fixed numbers"),
    "BGR": (Toy(preprocess_after(lambda p: p.flip(0))), "colour order", "fail", "as BGR: give them as RGB"),
    "grey": (
        Toy(preprocess_after(lambda p: p.mean(0, keepdim=True).expand(3, -1, -1))),
        "colour order",
        "warning",
        "lost",
    ),
    "wrong area": (
        Toy(partial(centre_crop, claim_all=True)),
        "area seen",
        "fail",
        r"a 320 x 120 image show \(100, 0, 220, 120\) .* says \(0, 0, 320, 120\)",
    ),
    "flip": (Toy(preprocess_after(lambda p: p.flip(2))), "area seen", "fail", "flip"),
    "swapped": (Toy(preprocess_after(lambda p: p.transpose(1, 2))), "area seen", "fail", "channels, rows, columns"),
    "window without a place": (
        Toy(squash_whole),
        "windows",
        "fail",
        r"\(0, 0, 320, 240\) of a window .* \(600, 120, 92",
    ),
    "no windows": (Toy(without_windows), "windows", "fail", r"open it with view\.open\(\)"),
    "features lose the place": (LosesPlaces(), "windows", "fail", "area_N4 of the features says"),
    "no input size": (Toy(of_one_size), "input size", "fail", "48 x 48 pixels where a view asks for 96 x 72: resize"),
    "aliased": (Toy(without_antialias), "resampling", "warning", "antialias=True"),
}
"""What is wrong -> the encoder, the check that finds it, how bad that is, what its advice says."""


def troubles(report):
    return {name: finding.status for name, finding in report.findings.items() if finding.status in ("fail", "warning")}


@pytest.mark.slow
@pytest.mark.parametrize("preprocess", [squash, centre_crop, letterbox])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_sound_encoder_passes_every_check(preprocess, precision):
    report = run_checks(Toy(preprocess, precision=precision))
    assert troubles(report) == {}
    assert [name for name, finding in report.findings.items() if finding.status == "not judged"] == []
    assert list(report.having("left out")) == ["probe values"]
    assert verdict(report) == "toy is ready: nothing failed, no warning."


@pytest.mark.slow
def test_what_is_measured_of_a_sound_encoder():
    measured = {name: finding.measured for name, finding in run_checks(Toy()).findings.items()}
    assert measured["pixels"] == f"float32 3 x {SIZE} x {SIZE}"
    assert measured["normalisation"] == "-1 to 1"
    assert measured["area seen"] == "whole image, squashed"
    assert measured["resampling"] == "bicubic, smoothed"
    assert measured["long texts"] == "23 of 300 words are seen"  # 24 tokens with the start
    assert measured["patch order"] == "plain 5 of 5"
    assert float(measured["patches agree"].removeprefix("plain ")) > 0.5
    assert run_checks(Toy(centre_crop)).findings["area seen"].measured == "crop: 38 % of a wide image's width is seen"
    assert run_checks(Toy(letterbox)).findings["area seen"].measured == "whole image, padded to the input's shape"


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught_by_its_own_check(mistake):
    encoder, check, status, advice = MISTAKES[mistake]
    report = run_checks(encoder)
    assert troubles(report) == {check: status}
    assert re.search(advice, report.findings[check].advice)
    assert (report.probe_table == "") == (status == "fail")
    if status == "fail":
        assert verdict(report).startswith("Do not trust numbers of toy yet. ")
        assert report.findings[check].advice in verdict(report)
    else:
        assert f"1 warning ({check})" in verdict(report)


def test_every_check_that_can_find_a_mistake_is_shown_to():
    shown = {check for _, check, _, _ in MISTAKES.values()}
    never_bad = {"punctuation", "patches agree"}  # notes at worst
    assert {check.name for check in CHECKS} - shown == never_bad | {"probe values"}  # which has tests of its own


def with_probe_values(values, encoder=Toy, **arguments):
    return encoder(card=CARD.model_copy(update={"probe": values}), **arguments)


def _beside(row, column):
    """The patch below or above in the middle columns, the one to the left or right in the others."""
    return (row ^ 1) * GRID + column if column in (2, 3) else row * GRID + (column ^ 1)


def test_patches_that_see_beyond_their_cells_are_a_note():
    finding = run_checks(Reordered(_beside)).findings["patch order"]
    assert (finding.status, finding.measured) == ("note", "plain 0 of 5")
    assert "see far beyond their cells" in finding.advice


def test_probe_values_that_agree():
    stored = measure(ProbedModel(Toy()))
    report = run_checks(with_probe_values(stored))
    assert (report.findings["probe values"].status, report.probe_table) == ("ok", "")


REFERENCE_MISTAKES = {
    "another crop": (
        Toy,
        {"preprocess": centre_crop},
        "only the image side differs: compare the weights, the activation",
    ),
    "another mean": (Toy, {"preprocess": preprocess_after(lambda p: p + 0.3)}, "only the image side differs"),
    "another case": (NotLowered, {}, "only the mixed case text differs: upper case is treated otherwise"),
    "punctuation dropped": (NoPunctuation, {}, "only the punctuation text differs"),
    "shorter context": (ShortContext, {}, "only the long text differs: long texts are cut otherwise"),
    "another projection": (Turned, {}, "compare the projections"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", REFERENCE_MISTAKES)
def test_probe_values_that_differ_name_the_side(mistake):
    encoder, arguments, advice = REFERENCE_MISTAKES[mistake]
    report = run_checks(with_probe_values(measure(ProbedModel(Toy())), encoder, **arguments))
    assert report.findings["probe values"].status == "fail"
    assert advice in report.findings["probe values"].advice


def test_probe_values_of_another_probe_or_length():
    stored = measure(ProbedModel(Toy()))
    older = stored.model_copy(update={"version": probe.VERSION - 1})
    assert run_checks(with_probe_values(older)).findings["probe values"].status == "note"
    cut = stored.model_copy(update={"image_text": stored.image_text[1:]})
    assert "instead of 20" in run_checks(with_probe_values(cut)).findings["probe values"].advice


@pytest.mark.slow
def test_the_printed_table_is_what_a_card_takes():
    report = run_checks(Toy())
    stored = ProbeValues.model_validate(tomllib.loads(report.probe_table)["probe"])
    assert (len(stored.image_image), len(stored.text_text), len(stored.image_text)) == (6, 10, 20)
    assert "float32 on cpu" in stored.source
    assert run_checks(with_probe_values(stored)).findings["probe values"].status == "ok"
    assert run_checks(Toy(precision="bf16")).probe_table == ""


def test_models_of_one_side_or_without_patches_are_judged_on_what_they_have():
    class ImagesOnly(Toy):
        gives = frozenset({"image", "global"})
        paths = {}  # noqa: RUF012

        def encode_pixels(self, pixels, need):
            return dataclasses.replace(super().encode_pixels(pixels, need), patches={}, grid=None)

        def texts(self, texts, need):
            raise AssertionError((texts, need))

    class PatchesOnly(Toy):
        gives = frozenset({"image", "text", "patches"})

        def encode_pixels(self, pixels, need):
            return dataclasses.replace(super().encode_pixels(pixels, need), global_ND=None)

        def similarity(self, images, texts, regions=None, path=None):  # noqa: ARG002
            scores = self.dense_scores(images, texts).amax((2, 3))
            return scores, scores

    report = run_checks(ImagesOnly())
    assert (troubles(report), report.probe_table) == ({}, "")
    assert report.findings["case"].measured == "the model gives no text"
    claimed = partial(centre_crop, claim_all=True)
    assert troubles(run_checks(ImagesOnly(claimed))) == {"area seen": "warning"}  # a fail where patches are given
    report = run_checks(PatchesOnly())
    assert troubles(report) == {}
    assert report.findings["patch order"].status == "ok"
    assert "image_image" not in report.probe_table


def test_a_detector_without_vectors_is_not_called_ready():
    class BoxesOnly(Toy):
        gives = frozenset({"image", "text", "detect"})
        paths = {}  # noqa: RUF012

    assert verdict(run_checks(BoxesOnly())) == "Nothing of toy could be judged: no check applies to what it gives."


def test_the_probe_is_what_its_version_says():
    sizes = [item.open().size for item in probe.IMAGES]
    assert sizes == [(256, 256), (384, 128), (192, 384), (16, 11), (1024, 768), (300, 200)]
    assert len(set(probe.TEXTS)) == len(probe.TEXTS) == 40
    digest = hashlib.sha256(b"".join(item.open().tobytes() for item in probe.IMAGES))
    digest.update("\n".join([*probe.TEXTS, *probe.COMPARED_TEXTS.values()]).encode())
    # cards hold values of this very probe: another one needs another VERSION, and all cards anew
    assert (probe.VERSION, digest.hexdigest()[:16]) == (1, "a650f43a30a2b1cb")
