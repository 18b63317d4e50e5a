"""Index masks are counted as an encoder's best classes are."""

import numpy as np
import pytest
from PIL import Image

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.errors import UserError
from sparc_bench.metrics.iou import class_counts, pixel_counts, upsampled_strips
from sparc_bench.outputs import reader
from tests.toys.encoders import random_encoder
from tests.unit.outputs.conftest import save_mask
from tests.unit.outputs.test_similarity import scored, values

CLASSES = ("circle", "square", "triangle", "cross", "star", "heart")


@pytest.fixture
def small(task, data_of):
    card = task("segmentation", data={"n": 4})
    return card, data_of(card)


@pytest.fixture
def small_with_background(task, data_of):
    card = task("segmentation", data={"n": 4}, background="class", background_words=["background"])
    return card, data_of(card)


def truths(data, background=255):
    """The right answer as a file holds it; void pixels are not scored, so that any value will do there."""
    return {
        example.id: np.where(truth == -1, background, np.where(truth < 0, 255, truth)).astype(np.uint8)
        for example in data
        for truth in [example.semantic()]
    }


def folder_of(path, masks, names=None):
    for item_id, values_HW in masks.items():
        save_mask(path / f"{item_id}.png", values_HW)
    if names is not None:
        (path / "classes.txt").write_text("\n".join(names) + "\n")
    return path


def test_the_truth_scores_one(small, small_with_background, tmp_path):
    for name, (card, data), background in (("a", small, 255), ("b", small_with_background, 6)):
        outcome = scored(card, folder_of(tmp_path / name, truths(data, background)), data)
        assert values(outcome) == {"miou": 1.0, "pixel_accuracy": 1.0, "image_miou": 1.0}
        assert outcome.groups.keys() == {"class"}
        assert outcome.counts["uncovered_pixels"] == 0
        assert outcome.ties == 0
        assert outcome.reference_rows.keys() == {"constant"}
    np.savez(tmp_path / "masks.npz", **truths(data, 6))
    assert values(scored(card, tmp_path / "masks.npz", data))["miou"] == 1.0


def test_equals_an_encoder_whose_best_classes_these_are(small_with_background, tmp_path):
    card, data = small_with_background
    bound = bind(card)
    encoder = random_encoder()
    encoder.size = data[0].image.open().size[0]
    prompted = bound.protocol.PromptedClasses(
        encoder,
        [*bound.protocol.class_words("scenes_shape", data.classes), "background"],
        bound.protocol.templates("scenes"),
    )
    masks = {}
    for example in data:
        images = encoder.images([example.view], frozenset({"patches"}))
        shape = example.semantic().shape
        scores_CKL = bound.protocol._scores(encoder, images, prompted, "local")[0]
        strips = [part for _, part in upsampled_strips(scores_CKL, images.area_N4[0].numpy(), shape, "nearest")]
        masks[example.id] = np.concatenate(strips, axis=1).argmax(axis=0).astype(np.uint8)
    theirs = outcome_of(bound.protocol, encoder, data, bound.options)
    ours = scored(card, folder_of(tmp_path / "masks", masks), data)
    for name, value in values(ours).items():
        assert value == pytest.approx(theirs.metrics[f"local/{name}"].value, abs=1e-12)
    assert ours.reference_rows["constant"]["miou"] == theirs.reference_rows["constant"]["local/miou"]
    assert ours.groups["class"].keys() == theirs.groups["class"].keys()
    assert 0 < values(ours)["miou"] < 1


def test_a_constant_mask_scores_the_constant_row(small, tmp_path):
    card, data = small
    pixels = np.bincount(np.concatenate([e.semantic()[e.semantic() >= 0] for e in data]), minlength=6)
    best = int(pixels.argmax())
    constant = {item_id: np.full_like(mask, best) for item_id, mask in truths(data).items()}
    outcome = scored(card, folder_of(tmp_path / "masks", constant), data)
    assert values(outcome)["pixel_accuracy"] == pytest.approx(pixels.max() / pixels.sum())
    assert values(outcome)["miou"] == pytest.approx(outcome.reference_rows["constant"]["miou"])


def test_pixels_without_a_prediction_are_wrong_and_noted(small, tmp_path):
    card, data = small
    masks = truths(data)
    first = data[0].id
    scored_pixels = int((data[0].semantic() >= 0).sum())
    total = sum(int((e.semantic() >= 0).sum()) for e in data)
    masks[first] = np.full_like(masks[first], 255)
    outcome = scored(card, folder_of(tmp_path / "masks", masks), data)
    assert values(outcome)["pixel_accuracy"] == pytest.approx(1 - scored_pixels / total)
    assert outcome.notes == (f"{scored_pixels} scored pixels have no prediction and count as wrong.",)


def test_values_that_are_named(small, small_with_background, tmp_path):
    """VOC's own numbering has background first, and other systems have any order."""
    names = ["background", *CLASSES[::-1]]
    for number, (card, data) in enumerate((small, small_with_background)):
        masks = {i: np.where(m == 255, 0, 6 - m).astype(np.uint8) for i, m in truths(data).items()}
        path = folder_of(tmp_path / str(number), masks, names)
        assert values(scored(card, path, data))["miou"] == 1.0
        np.savez(tmp_path / "masks.npz", classes=np.array(names), **masks)
        assert values(scored(card, tmp_path / "masks.npz", data))["miou"] == 1.0
    (path / "classes.txt").write_text("\n".join(["background", "cirle", *CLASSES[1:]]))
    with pytest.raises(UserError, match=r"names the class 'cirle', .* did you mean 'circle'\?"):
        scored(card, path, data)
    (path / "classes.txt").write_text("circle\ncircle\n")
    with pytest.raises(UserError, match="names 2 classes, 1 different ones"):
        scored(card, path, data)


def test_masks_of_sixteen_bits_and_palettes(small, tmp_path):
    card, data = small
    for number, mask in enumerate(truths(data).items()):
        item_id, values_HW = mask
        path = tmp_path / "masks" / f"{item_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            wide_HW = values_HW.astype(np.uint16)
            wide_HW[wide_HW == 255] = 65535
            Image.fromarray(wide_HW).save(path)
        else:
            palette = Image.fromarray(values_HW)
            palette.putpalette([channel for value in range(256) for channel in (value, 7, 255 - value)])
            palette.save(path)
    assert values(scored(card, tmp_path / "masks", data))["miou"] == 1.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m[:-1], r"The mask of .*000000.* in .* is 63 x 64, its photo 64 x 64 \(rows x columns\): resize"),
        (
            lambda m: np.where(m == 255, 6, m),
            "has the value 6, but classes are 0 to 5 and 255 is no prediction: number",
        ),
        (lambda m: np.stack([m] * 3, axis=2), "holds colours .RGB., not class numbers"),
    ],
)
def test_masks_that_do_not_fit(small, tmp_path, change, sentence):
    card, data = small
    masks = truths(data)
    side = masks[data[0].id].shape[0]
    masks[data[0].id] = change(masks[data[0].id])
    path = folder_of(tmp_path / "masks", masks)
    with pytest.raises(UserError, match=sentence.replace("63 x 64", f"{side - 1} x {side}").replace("64", str(side))):
        scored(card, path, data)


def test_missing_masks_other_types_and_images_beyond(small, tmp_path):
    card, data = small
    masks = truths(data)
    lost = data[1].id
    rest = {item_id: mask for item_id, mask in masks.items() if item_id != lost}
    with pytest.raises(UserError, match=rf"lacks 1 of the task's 4 images \({lost}\)"):
        scored(card, folder_of(tmp_path / "rest", rest), data)
    beyond = folder_of(tmp_path / "beyond", {**masks, "another": np.zeros((2, 2), dtype=np.uint8)})
    assert "1 images of" in scored(card, beyond, data).notes[0]
    (tmp_path / "beyond" / f"{lost}.png").write_bytes(b"\x89PNG cut off")
    with pytest.raises(UserError, match="cannot be decoded"):
        scored(card, beyond, data)
    np.savez(tmp_path / "masks.npz", **{item_id: mask.astype(np.int64) for item_id, mask in masks.items()})
    with pytest.raises(UserError, match="is a int64 array with 2 axes: give uint8 or uint16"):
        reader.read(tmp_path / "masks.npz", {"masks"})


def test_class_counts_equal_pixel_counts_of_clear_scores():
    rng = np.random.default_rng(0)
    predicted_X, truth_X = rng.integers(5, size=200), rng.integers(5, size=200)
    plain, scores = class_counts(predicted_X, truth_X, 5), np.eye(5, dtype=np.float32)[:, predicted_X]
    fancy = pixel_counts(scores, truth_X)
    for name in ("intersection_C", "predicted_C", "truth_C"):
        assert getattr(plain, name).tolist() == getattr(fancy, name).tolist()
    nothing = class_counts(np.full(200, -1), truth_X, 5)
    assert nothing.intersection_C.sum() == nothing.predicted_C.sum() == 0
    assert nothing.truth_C.tolist() == fancy.truth_C.tolist()


def zero_for_background(masks, background):
    """Masks as VOC numbers its own: 0 background, classes from 1, 255 void."""
    return {i: np.where(m == background, 0, np.where(m == 255, 255, m + 1)).astype(np.uint8) for i, m in masks.items()}


def test_masks_in_the_data_sets_own_numbers_are_recognised_and_named(small, small_with_background, tmp_path):
    for name, (card, data), background in (("a", small, 6), ("b", small_with_background, 6)):
        own = zero_for_background(truths(data, background), background)
        for path in (folder_of(tmp_path / name, own), tmp_path / f"{name}.npz"):
            if path.suffix:
                np.savez(path, **own)
            outcome = scored(card, path, data)
            assert values(outcome) == {"miou": 1.0, "pixel_accuracy": 1.0, "image_miou": 1.0}
            assert "read as 0 background, classes from 1: 100.0% of the scored pixels are right" in outcome.notes[0]


def test_numbers_that_fit_no_better_are_counted_from_0_and_that_is_said(small, tmp_path):
    card, data = small
    rng = np.random.default_rng(0)
    masks = {item_id: rng.integers(0, 6, mask.shape).astype(np.uint8) for item_id, mask in truths(data).items()}
    outcome = scored(card, folder_of(tmp_path / "masks", masks), data)
    assert "counted from 0, though they fit the truth about as well as 0 background" in outcome.notes[0]
    masks[data[0].id][0, 0] = 6
    with pytest.raises(
        UserError, match=r"has the value 6, but classes are 0 to 5 .* or name the values in classes\.txt"
    ):
        scored(card, folder_of(tmp_path / "masks", masks), data)


@pytest.mark.parametrize("task", ["voc20", "voc21"])
def test_vocs_true_masks_score_one_against_themselves(tmp_path, task):
    root = tmp_path / "data"
    voc = root / "VOCdevkit/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for number in range(3):
        mask_HW = np.zeros((20, 30), dtype=np.uint8)
        mask_HW[5:15, 4:20], mask_HW[4, 4:20] = 1 + 9 * number, 255
        Image.new("RGB", (30, 20)).save(voc / "JPEGImages" / f"{number}.jpg")
        save_mask(voc / "SegmentationClass" / f"{number}.png", mask_HW)
    (voc / "ImageSets/Segmentation/val.txt").write_text("0\n1\n2\n")
    card = discovery.task(f"voc2012_mini_{task}")
    card = card.model_copy(update={"data": {"folder": "VOCdevkit/VOC2012"}})
    bound = bind(card)
    data = bound.dataset.read(root, card.split, bound.data_options)
    outcome = scored(card, voc / "SegmentationClass", data)
    assert values(outcome)["miou"] == 1.0
