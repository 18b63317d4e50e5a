"""Embeddings on disk: every layout gives the same vectors, every mistake is a sentence."""

import json
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sparc_bench.cards import discovery
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cli.app import main
from sparc_bench.cli.task_inputs import task_inputs
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import precomputed
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from sparc_bench.models.resolve import load_encoder, resolve
from tests.toys.views import sized

IDS = ["b.jpg", "a.jpg", "c.jpg"]
TEXTS = ["a dog", 'two "big", dogs', "a cat"]
GLOBAL = frozenset({"global"})


def vectors(rows=3, width=4, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


IMAGE_ND, TEXT_MD = vectors(seed=1), vectors(seed=2)


def never():
    raise AssertionError("an image was opened")


def items(*names):
    return [View(ImageItem(name, never)) for name in names]


def load(path, **options):
    card = ModelCard(name="stored", title="", family="precomputed", source="test", options=options)
    return precomputed.load(card, path, Runtime())


def refused(path, match, **options):
    with pytest.raises(UserError, match=match) as error:
        load(path, **options)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))


@pytest.fixture
def folder(tmp_path):
    """A folder in the plainest layout."""
    path = tmp_path / "embeddings"
    path.mkdir()
    np.save(path / "image_embeddings.npy", IMAGE_ND)
    np.save(path / "text_embeddings.npy", TEXT_MD)
    (path / "inputs.json").write_text(json.dumps({"task": "x", "image_ids": IDS, "texts": TEXTS}))
    return path


def as_inputs_json(path):
    pass


def as_metadata_csv(path):
    (path / "inputs.json").unlink()
    rows = [f'{name[:-4]},"{text.replace(chr(34), chr(34) * 2)}"' for name, text in zip(IDS, TEXTS, strict=True)]
    (path / "metadata.csv").write_text("\n".join(["image_id,caption", *rows]))


def as_name_arrays(path):
    (path / "inputs.json").unlink()
    np.save(path / "image_ids.npy", np.array(IDS))
    np.save(path / "texts.npy", np.array(TEXTS))


def as_npz(path):
    for file in path.iterdir():
        file.unlink()
    arrays = {"image_embeddings": IMAGE_ND.astype(np.float64), "text_embeddings": TEXT_MD}
    np.savez(path / "all.npz", image_ids=np.array(IDS), texts=np.array(TEXTS), other=np.zeros(3), **arrays)


def as_two_npz(path):
    for file in path.iterdir():
        file.unlink()
    np.savez_compressed(path / "images.npz", image_ids=np.array(IDS), image_embeddings=IMAGE_ND)
    np.savez_compressed(path / "texts.npz", texts=np.array(TEXTS), text_embeddings=TEXT_MD)


def as_safetensors(path):
    for file in path.iterdir():
        file.unlink()
    tensors = {"image_embeddings": torch.from_numpy(IMAGE_ND), "text_embeddings": torch.from_numpy(TEXT_MD)}
    save_file(tensors, path / "all.safetensors", {"image_ids": json.dumps(IDS), "texts": json.dumps(TEXTS)})


@pytest.mark.parametrize(
    "layout", [as_inputs_json, as_metadata_csv, as_name_arrays, as_npz, as_two_npz, as_safetensors]
)
def test_every_layout_gives_the_same_vectors_in_the_order_asked_for(folder, layout):
    layout(folder)
    encoder = load(folder)
    images = encoder.images(items("a.jpg", "c.jpg", "a.jpg"), GLOBAL)
    assert images.ids == ("a.jpg", "c.jpg", "a.jpg")
    assert np.array_equal(images.global_ND.numpy(), IMAGE_ND[[1, 2, 1]])
    assert images.global_ND.dtype == torch.float32
    assert np.array_equal(encoder.texts(TEXTS[::-1], GLOBAL).global_MD.numpy(), TEXT_MD[::-1])
    assert encoder.gives == {"image", "text", "global"}
    assert encoder.identity is None  # looking up is as quick as a cache


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_one_file_and_the_command_lines_word(folder, suffix):
    (as_npz if suffix == "npz" else as_safetensors)(folder)
    resolved = resolve(f"precomputed:{folder}/all.{suffix}")
    encoder = load_encoder(resolved, Runtime())
    assert np.array_equal(encoder.texts(TEXTS, GLOBAL).global_MD.numpy(), TEXT_MD)
    assert np.array_equal(load(None, weights=str(folder)).texts(TEXTS, GLOBAL).global_MD.numpy(), TEXT_MD)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_looked_up_as_float32(folder, dtype):
    as_safetensors(folder)
    halves = {"image_embeddings": torch.from_numpy(IMAGE_ND).to(dtype)}
    save_file(halves, folder / "all.safetensors", {"image_ids": json.dumps(IDS)})
    encoder = load(folder)
    assert encoder.gives == {"image", "global"}
    found = encoder.images(items(*IDS), GLOBAL).global_ND
    assert torch.equal(found, torch.from_numpy(IMAGE_ND).to(dtype).float())


def test_npy_is_memory_mapped(folder):
    assert isinstance(load(folder)._stored.images.rows, np.memmap)


@pytest.mark.parametrize(("stored", "asked"), [("a.jpg", "a"), ("a", "a.jpg"), ("a.JPEG", "a.png"), ("a", "a")])
def test_ids_match_with_and_without_suffix(folder, stored, asked):
    (folder / "inputs.json").write_text(json.dumps({"image_ids": ["x", stored, "y"], "texts": TEXTS}))
    assert np.array_equal(load(folder).images(items(asked), GLOBAL).global_ND[0].numpy(), IMAGE_ND[1])


def test_an_exact_id_goes_first_and_an_ambiguous_one_is_missing(folder):
    (folder / "inputs.json").write_text(json.dumps({"image_ids": ["a.jpg", "a.png", "b"], "texts": TEXTS}))
    encoder = load(folder)
    assert np.array_equal(encoder.images(items("a.png"), GLOBAL).global_ND[0].numpy(), IMAGE_ND[1])
    with pytest.raises(UserError, match=r"1 of 2 images, the first is 'a'"):
        encoder.images(items("b", "a"), GLOBAL)


def test_a_crop_has_a_name_of_its_own(folder):
    (folder / "inputs.json").write_text(json.dumps({"image_ids": ["a", "a[0,8,32,40]", "b"], "texts": TEXTS}))
    encoder = load(folder)
    crop = View(ImageItem("a", never), (0.0, 8.0, 31.6, 40.0))
    assert np.array_equal(encoder.images([crop], GLOBAL).global_ND[0].numpy(), IMAGE_ND[1])
    with pytest.raises(UserError, match=r"'b\[0,8,32,40\]'"):
        encoder.images([View(ImageItem("b", never), crop.window)], GLOBAL)


def test_missing_images_are_counted_over_all_that_are_asked_for(folder):
    asked = items(*IDS, "d.jpg", "e.jpg", "e.jpg")
    with pytest.raises(UserError, match=r"2 of 5 images, the first is 'd.jpg': .*sparc-bench show TASK --out"):
        next(iter(load(folder).stream([asked], GLOBAL)))


def test_a_missing_text_comes_with_the_nearest(folder):
    with pytest.raises(UserError, match=r"1 of 2 texts, the first is 'A dog'; the nearest there is 'a dog': .*exactly"):
        load(folder).texts(["A dog", "a cat"], GLOBAL)
    with pytest.raises(UserError, match=r"the first is '0123456789': embed"):
        load(folder).texts(["0123456789"], GLOBAL)


def test_one_side_alone(folder):
    (folder / "text_embeddings.npy").unlink()
    encoder = load(folder)
    assert encoder.gives == {"image", "global"}
    with pytest.raises(UserError, match="holds no text_embeddings"):
        encoder.texts(TEXTS, GLOBAL)


def test_repeated_names(folder):
    (folder / "inputs.json").write_text(json.dumps({"image_ids": ["a", "b", "a"], "texts": TEXTS}))
    refused(folder, r"two different vectors of the image 'a' \(rows 0 and 2\): keep one")
    np.save(folder / "image_embeddings.npy", IMAGE_ND[[0, 1, 0]] * np.float32([[1], [1], [1 + 1e-6]]))
    assert np.array_equal(load(folder).images(items("a"), GLOBAL).global_ND[0].numpy(), IMAGE_ND[0])
    np.save(folder / "image_embeddings.npy", IMAGE_ND[[0, 1, 0]] * np.float32([[1], [1], [1 + 1e-4]]))
    refused(folder, "two different vectors")


def test_vectors_that_float32_would_make_zeros_are_refused(folder):
    small_ND = IMAGE_ND.astype(np.float64) * 1e-60
    small_ND[0] = 0.0  # a true zero is no loss
    np.save(folder / "image_embeddings.npy", small_ND)
    refused(folder, rf"all are 0 in float32 in 2 of 3 rows, such as row 1 \('{IDS[1]}'\): scale the vectors up")
    np.save(folder / "image_embeddings.npy", IMAGE_ND.astype(np.float64) * np.array([[1.0, 1e-60, 1.0, 1.0]]))
    assert load(folder).gives


@pytest.fixture
def patches(folder):
    """Patches of 2 rows and 3 columns beside every image."""
    patches_NPD = np.random.default_rng(3).normal(size=(3, 6, 4)).astype(np.float32)
    np.save(folder / "image_patches.npy", patches_NPD)
    np.save(folder / "patch_grid.npy", np.array([2, 3]))
    return patches_NPD


def test_patches_with_their_areas(folder, patches):
    np.save(folder / "image_areas.npy", np.float32([[0, 0, 9, 6], [1, 2, 7, 6], [0, 0, 3, 2]]))
    encoder = load(folder, trained_patches=True)
    assert encoder.gives == {"image", "text", "global", "patches"}
    assert encoder.paths == {"stored": True}
    found = encoder.images(items("a.jpg"), frozenset({"patches"}))
    assert found.global_ND is None
    assert found.grid == (2, 3)
    assert np.array_equal(found.patches["stored"][0].numpy(), patches[1])
    assert found.area_N4.tolist() == [[1, 2, 7, 6]]
    assert encoder.preprocess(items("a.jpg")[0])[1] == (1, 2, 7, 6)
    assert encoder.dense_scores(found, encoder.texts(TEXTS, GLOBAL)).shape == (1, 3, 2, 3)


def test_patches_without_areas_cover_the_whole_image(folder, patches):
    encoder = load(folder)
    assert encoder.paths == {"stored": False}
    item = View(ImageItem("a.jpg", lambda: Image.new("RGB", (30, 20))))
    assert encoder.images([item], frozenset({"patches"})).area_N4.tolist() == [[0, 0, 30, 20]]
    with pytest.raises(UserError, match="one input size only"):
        encoder.images(sized([item], 448), GLOBAL)


def test_patches_that_do_not_fit(folder, patches):
    np.save(folder / "patch_grid.npy", np.array([2, 2]))
    refused(folder, r"6 patches an image, .* patch_grid \[2, 2\]")
    (folder / "patch_grid.npy").unlink()
    refused(folder, "no patch_grid")
    np.save(folder / "image_patches.npy", patches[:2])
    refused(folder, "patches of 2 images")


def test_numbers_that_no_score_can_be_made_of(folder):
    for odd in (np.nan, np.inf, 1e300):
        broken = IMAGE_ND.astype(np.float64)
        broken[2, 1] = odd
        np.save(folder / "image_embeddings.npy", broken)
        refused(
            folder,
            r"NaN or infinite in float32 in 1 of 3 rows, such as row 2 \('",
        )
    np.save(folder / "image_embeddings.npy", np.ones((3, 4), dtype=np.int8))
    refused(folder, "type int8: save the vectors as float32")
    np.save(folder / "image_embeddings.npy", vectors(3, 5))
    refused(folder, r"different widths \(image_embeddings 5, text_embeddings 4\)")
    np.save(folder / "image_embeddings.npy", vectors(2))
    refused(folder, r"has 2 rows, but there are 3 image names")
    np.save(folder / "image_embeddings.npy", IMAGE_ND[0])
    refused(folder, r"of shape 4: save one vector a row")


def test_names_that_are_missing_or_contradict_each_other(folder):
    np.save(folder / "texts.npy", np.array(TEXTS[::-1]))
    refused(folder, "holds two different lists of texts")
    (folder / "texts.npy").unlink()
    (folder / "inputs.json").write_text('{"image_ids": ["a", 1, "b"]}')
    refused(folder, "image_ids that are no list of strings")
    (folder / "inputs.json").write_text("[]")
    refused(folder, r"show TASK --out .*inputs.json")
    (folder / "inputs.json").write_text("{")
    refused(folder, "no valid JSON")
    (folder / "inputs.json").unlink()
    refused(folder, r"has no names for the rows of image_embeddings.npy: add an array 'image_ids'")
    (folder / "metadata.csv").write_text("image_id,caption\na,b,c\n")
    refused(folder, "another number of fields than its header in row 2")
    (folder / "metadata.csv").unlink()
    np.savez(folder / "more.npz", image_embeddings=IMAGE_ND)
    refused(folder, "holds image_embeddings in image_embeddings.npy and more.npz: keep one")


def test_damaged_files(folder, tmp_path):
    whole = (folder / "image_embeddings.npy").read_bytes()
    for content in (whole[:-7], whole[:20], b"", b"no array at all"):
        (folder / "image_embeddings.npy").write_bytes(content)
        refused(folder, r"image_embeddings.npy is truncated or damaged \(.+\): copy or save it again")
    for save in (as_npz, as_safetensors):
        (folder / "image_embeddings.npy").write_bytes(whole)
        save(folder)
        file = next(folder.iterdir())
        content = file.read_bytes()
        file.write_bytes(content[: len(content) * 2 // 3])
        refused(file, r"is truncated(, damaged| or damaged)")
        file.unlink()
    refused(tmp_path / "nothing", "no embeddings at")
    refused(folder, "holds no image_embeddings and no text_embeddings, but no arrays")
    (tmp_path / "vectors.txt").write_text("1 2 3")
    refused(tmp_path / "vectors.txt", r"is no \.npz, \.safetensors file")


class Trap:
    def __reduce__(self):
        return (open, ("trap_was_sprung", "w"))


def test_pickles_are_refused_and_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(folder / "texts.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    refused(folder, r"texts.npy holds Python objects.*dtype=str")
    (folder / "texts.npy").write_bytes(pickle.dumps(Trap()))
    refused(folder, r"texts.npy holds Python objects")
    (folder / "texts.npy").unlink()
    np.savez(folder / "more.npz", texts=np.array([Trap()], dtype=object))
    refused(folder, r"more.npz holds Python objects")
    assert not (tmp_path / "trap_was_sprung").exists()


def test_archives_that_leave_their_folder_are_refused(folder):
    with zipfile.ZipFile(folder / "more.npz", "w") as archive:
        archive.writestr("../image_areas.npy", b"")
    refused(folder, "path that leaves its folder")


def test_the_hash_is_of_what_was_read(folder):
    before = load(folder).weights_hash
    (folder / "README.md").write_text("not read")
    assert load(folder).weights_hash == before
    np.save(folder / "text_embeddings.npy", TEXT_MD + 1)
    changed = load(folder).weights_hash
    (folder / "inputs.json").write_text(json.dumps({"image_ids": IDS, "texts": TEXTS[::-1]}))
    assert len({before, changed, load(folder).weights_hash}) == 3


def test_what_a_task_needs_is_what_it_asks_for(tmp_path):
    card = discovery.task("scenes_classification_shape").model_copy(
        update={"data": {"kind": "single", "n": 12, "label": "shape"}, "expect": {}}
    )
    inputs = task_inputs(card, None)
    assert len(inputs.views) == 12
    assert len(inputs.texts) == 24
    assert "a picture with a heart" in inputs.texts
    np.savez(
        tmp_path / "all.npz",
        image_ids=np.array(list(inputs.views)),
        texts=np.array(inputs.texts),
        image_embeddings=vectors(12),
        text_embeddings=vectors(24),
    )
    (result,) = evaluate(f"precomputed:{tmp_path}/all.npz", [card], Settings(results=tmp_path / "results"))
    assert result.error is None
    assert result.record.n == 12


def test_show_writes_the_inputs_of_a_task(tmp_path, capsys):
    text = (discovery.cards_folder("tasks") / "scenes_classification_colour.toml").read_text()
    card = tmp_path / "few.toml"
    card.write_text(text.replace("n = 720", "n = 6").partition("[expect]")[0])
    out = tmp_path / "inputs.json"
    assert main(["show", str(card), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"Wrote {out}: 6 images and 24 texts.\n"
    content = json.loads(out.read_text())
    assert content["task"] == "few"
    assert content["image_ids"][0] == "scenes1/test/single/000000"
    assert content["texts"][:2] == ["a red object", "there is a red object"]
    for odd, words in (("inputs.txt", "end --out in .json"), ("none/inputs.json", "does not exist: make it")):
        assert main(["show", str(card), "--out", str(tmp_path / odd)]) == 2
        assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.toml", "inputs.json"]


def test_tasks_that_need_patches_are_listed_too():
    card = discovery.task("scenes_segmentation_shape").model_copy(update={"expect": {}})
    card = card.model_copy(update={"data": {**card.data, "n": 4}})
    assert len(task_inputs(card, None).views) == 4


def test_published_embeddings_give_the_published_numbers(test_data, tmp_path, capsys):
    if not (test_data / "clip_embeddings_flickr8k").is_dir():
        pytest.skip(f"{test_data} holds no clip_embeddings_flickr8k")
    settings = Settings(results=tmp_path, data_root=test_data)
    model = f"precomputed:{test_data}/clip_embeddings_flickr8k"
    (result,) = evaluate(model, [discovery.task("flickr8k_first100")], settings)
    assert result.error is None
    values = {name: metric.value for name, metric in result.record.metrics.items()}
    assert values == {
        "text_to_image_r1": 0.832,
        "text_to_image_r5": 0.99,
        "text_to_image_r10": 0.998,
        "image_to_text_r1": 0.93,
        "image_to_text_r5": 1.0,
        "image_to_text_r10": 1.0,
    }
    assert result.record.counts["captions"] == 500
    arguments = ["--task", "flickr8k_first100", "--results", str(tmp_path), "--data-root", str(test_data)]
    assert main(["eval", model, *arguments]) == 0
    printed = dict(re.findall(r"^  (\w+) .* ([\d.]+) \[", capsys.readouterr().out, re.MULTILINE))
    assert printed == {name: f"{100 * value:.1f}" for name, value in values.items()}
    inputs = task_inputs(discovery.task("flickr8k_first100"), test_data)
    assert (len(inputs.views), len(inputs.texts)) == (100, 500)


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_the_length_of_a_vector_decides_no_score(folder, factor):
    item = View(ImageItem("a.jpg", open))

    def cosine():
        encoder = load(folder)
        images, texts = encoder.images([item], GLOBAL), encoder.texts(TEXTS, GLOBAL)
        return encoder.similarity(images, texts)[0]

    plain = cosine()
    for name in ("image_embeddings", "text_embeddings"):
        np.save(
            folder / f"{name}.npy", (np.load(folder / f"{name}.npy").astype(np.float64) * factor).astype(np.float32)
        )
    torch.testing.assert_close(cosine(), plain, rtol=1e-5, atol=1e-6)


def test_images_are_found_by_the_names_of_their_files(folder):
    encoder = load(folder)
    named = [View(ImageItem.file("139", Path("photos") / IDS[0])), View(ImageItem.file("285", Path("photos") / IDS[1]))]
    found = encoder.images(named, frozenset({"global"}))
    assert found.ids == ("139", "285")
    assert torch.equal(found.global_ND, encoder.images(items(*IDS[:2]), frozenset({"global"})).global_ND)
    with pytest.raises(UserError, match=r"the first is '7' \(or 'zebra\.jpg'\): embed"):
        encoder.images([View(ImageItem.file("7", Path("photos/zebra.jpg")))], frozenset({"global"}))


def test_captions_are_scored_without_a_photo_on_disk(tmp_path):
    """Neither the list of inputs nor the evaluation opens an image; vectors are known by the names of files."""
    home = tmp_path / "root/mine"
    home.mkdir(parents=True)
    images = [{"id": k, "file_name": f"photo_{k}.jpg"} for k in range(3)]
    captions = [{"id": k, "image_id": k, "caption": f"caption {k}"} for k in range(3)]
    (home / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    card = discovery.task("coco_val2017_mini_retrieval").model_copy(
        update={"data": {"folder": "mine", "annotations": "captions.json", "images": "images"}, "expect": {}}
    )
    inputs = task_inputs(card, tmp_path / "root")
    assert list(inputs.views) == ["0", "1", "2"]
    np.savez(
        tmp_path / "all.npz",
        image_ids=np.array([image["file_name"] for image in images]),
        texts=np.array(inputs.texts),
        image_embeddings=np.eye(3, dtype=np.float32),
        text_embeddings=np.eye(3, dtype=np.float32),
    )
    settings = Settings(results=tmp_path / "results", data_root=tmp_path / "root")
    (result,) = evaluate(f"precomputed:{tmp_path}/all.npz", [card], settings)
    assert result.error is None
    assert result.record.metrics["image_to_text_r1"].value == 1
    assert "3 of 3 files (3 annotations) are not in" in result.record.notes[0]
