"""Every reader of files: whatever they hold, the outcome is a result or a sentence, in bounded time and memory.

Readers of data sets and of outputs are those in their folders: a new one is tried as it comes.
"""

import inspect
import io
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from sparc_bench.cards import discovery, photo_lists, prompts
from sparc_bench.cards.card import parse, read_toml
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.study_card import StudyCard, read_study
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue import data_card
from sparc_bench.cost import cost_rows
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import precomputed
from sparc_bench.encoders._stored_arrays import VECTORS
from sparc_bench.encoders._transformers_folder import Folder, trusts
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import DataFolder
from sparc_bench.images.item import ImageItem
from sparc_bench.outputs import reader
from sparc_bench.records import outcome_file, record
from sparc_bench.study import job_progress, study_rows
from sparc_bench.training import log
from sparc_bench.two_towers import checkpoint
from sparc_bench.weights import open_clip_source, weights_file
from tests.toys import hostile
from tests.toys.hostile import few, keys_of
from tests.toys.limits import limited

pytestmark = [pytest.mark.filterwarnings("ignore:Generating overly large repr"), pytest.mark.slow]

ROOT = discovery.cards_folder("tasks").parent


def outcome(read, *arguments):
    """Call a reader: its result, or None where it ends in a sentence; all else is a fault."""
    try:
        return read(*arguments)
    except UserError as error:
        str(error).encode()  # it can be printed
        return None


@pytest.fixture(autouse=True)
def bounded():
    with limited(120, 2):
        yield


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def imported(module):
    """A module, with those of its folder that it imports from."""
    package = module.__name__.rpartition(".")[0]
    others = {inspect.getmodule(each) for each in vars(module).values() if not isinstance(each, ModuleType)}
    return [module, *(other for other in others if other and other.__name__.startswith(f"{package}._"))]


@pytest.mark.parametrize("name", [name for name in discovery.names("datasets") if name != "scenes1"])
def test_data_set_readers(name, folder, monkeypatch):
    """The bytes of every file are drawn, and photos of a few names are there."""
    module = discovery.load("datasets", name)
    keys = keys_of(*imported(module))
    home = folder / name
    for photo in ("1.jpg", "a.jpg", "000000000139.jpg", "n1/a.jpg", "0/b.png"):
        (home / photo).parent.mkdir(parents=True, exist_ok=True)
        (home / photo).write_bytes(b"no photo")
    drawn = {"files": [b""]}
    monkeypatch.setattr(DataFolder, "find", classmethod(lambda cls, *_: cls(home, "files")))
    monkeypatch.setattr(DataFolder, "folder", lambda *_: home)
    monkeypatch.setattr(DataFolder, "read", lambda _, file: drawn["files"][len(file) % len(drawn["files"])])
    leaves = {"absent": "skip"} if "absent" in module.Options.model_fields else {}
    options = module.Options(**leaves)
    contents = st.one_of(
        hostile.json_files(keys), hostile.csv_files(["image", "caption"]), hostile.lists(), hostile.plain()
    )

    @few(40)
    @given(st.lists(contents, min_size=1, max_size=3), hostile.tar_files(), st.sampled_from(sorted(module.SPLITS)))
    def check(files, tar, split):
        drawn["files"] = files
        for part in split.split("+"):
            (home / part).mkdir(exist_ok=True)
            (home / part / "0.tar").write_bytes(tar)
        found = outcome(module.read, folder, split, options)
        if found is not None and len(found):
            outcome(found[0].image.open)

    check()


OUTPUTS = sorted(reader.kinds())
ARRAY_NAMES = ("scores", "image_to_text", "text_to_image", "image_ids", "texts", *VECTORS)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_readers_of_outputs(kind, folder):
    keys = keys_of(*imported(reader.kinds()[kind])) | set(ARRAY_NAMES)
    contents = st.one_of(
        hostile.json_files(keys), hostile.npz_files(keys), hostile.safetensors_files(keys), hostile.plain()
    )

    @few(60)
    @given(contents, st.sampled_from([".json", ".npz", ".safetensors", ""]))
    def check(content, suffix):
        file = folder / f"outputs{suffix}"
        file.write_bytes(content)
        outcome(reader.read, file, OUTPUTS)

    check()


@few(40)
@given(hostile.plain(), hostile.plain(), st.sampled_from(["classes.txt", "a.png", "1.png"]))
def test_a_folder_of_masks(first, second, name):
    with tempfile.TemporaryDirectory() as path:
        (Path(path) / name).write_bytes(first)
        (Path(path) / "b.png").write_bytes(second)
        found = outcome(reader.read, Path(path), OUTPUTS)
        if found is not None:
            outcome(found[1].read, 0, (1, 1), "a")


ARRAYS = {
    "image_embeddings.npy": hostile.npy_files(),
    "texts.npy": hostile.npy_files(),
    "vectors.npz": hostile.npz_files(ARRAY_NAMES),
    "vectors.safetensors": hostile.safetensors_files(ARRAY_NAMES),
    "inputs.json": hostile.json_files(ARRAY_NAMES),
    "metadata.csv": hostile.csv_files(["image_id", "caption"]),
}


def test_precomputed_vectors(folder):
    card = ModelCard(name="x", title="x", family="precomputed", source="x")
    home = folder / "vectors"
    home.mkdir()

    @few(100)
    @given(st.fixed_dictionaries({}, optional=ARRAYS))
    def check(files):
        for old in home.iterdir():
            old.unlink()
        for name, content in files.items():
            (home / name).write_bytes(content)
        outcome(precomputed.load, card, home, Runtime())

    check()


CARDS = {
    "recipe": Recipe,
    "model": ModelCard,
    "task": TaskCard,
    "study": StudyCard,
    "data": data_card.DataCard,
    "photo_list": photo_lists.PhotoList,
    "class_names": prompts.ClassNames,
    "prompts": prompts.Prompts,
}


@pytest.mark.parametrize("card", CARDS)
def test_cards(card):
    cls = CARDS[card]
    keys = keys_of(sys.modules[cls.__module__])

    @few(60)
    @given(st.one_of(hostile.toml_values(keys), hostile.values(keys)))
    def check(table):
        outcome(parse, cls, table, "mine.toml")

    check()


@few(60)
@given(
    hostile.cut(st.sampled_from(sorted(ROOT.glob("reference_models/**/*.toml"))[::4]).map(Path.read_bytes)),
    st.sampled_from([".toml", "é.toml", " x.toml"]),
)
def test_card_files(content, suffix):
    with tempfile.TemporaryDirectory() as path:
        file = Path(path) / f"x{suffix}"
        file.write_bytes(content)
        for read in (read_toml, read_study, data_card.read_card, photo_lists.from_file):
            outcome(read, file)
        for read in (discovery.task, discovery.model):
            outcome(read, str(file))


KEPT = record.record_files(ROOT / "results")[0]
ROWS = {"trials": study_rows.TrialRow, "runs": study_rows.RunRow}
VALID = {
    "record": KEPT.read_bytes(),
    "outcomes": KEPT.with_suffix(".npz").read_bytes(),
    "checkpoint": (ROOT / "reference_models/weights/scenes_clip.safetensors").read_bytes()[:40_000],
    "trials": (ROOT / "results/studies/scenes/trials.csv").read_bytes()[:3000],
    "runs": (ROOT / "results/studies/scenes/runs.csv").read_bytes()[:3000],
    "costs": b",".join(name.encode() for name in cost_rows.CostRow.model_fields) + b"\nclip,8,done\n",
    "log": b'{"step": 1, "loss": 2}\n{"step": 2, "val": {}}\n',
}


def record_of(file):
    return record.read_record(file).headline_metrics


def log_until(file):
    return log._keep_until(file, 1)


READERS = {
    "record": (record_of, hostile.json_files(keys_of(record))),
    "outcomes": (outcome_file.read, hostile.npz_files(["manifest", "ids"])),
    "checkpoint": (checkpoint.read, hostile.safetensors_files(["format", "recipe", "seed", "tokenizer", "step"])),
    "trials": (lambda file: study_rows.read_rows(file, ROWS["trials"]), hostile.csv_files(ROWS["trials"].model_fields)),
    "runs": (lambda file: study_rows.read_rows(file, ROWS["runs"]), hostile.csv_files(ROWS["runs"].model_fields)),
    "costs": (cost_rows.read_rows, hostile.csv_files(cost_rows.CostRow.model_fields)),
    "log": (log_until, hostile.json_files(["step", "val", "loss"])),
    "progress": (job_progress.last_step, hostile.json_files(["step", "val", "loss"])),
}
"""What the program itself writes, and reads again: of another machine, cut, or changed."""


@pytest.mark.parametrize("name", READERS)
def test_files_of_the_program(name, folder):
    read, contents = READERS[name]
    mine = hostile.cut(st.just(VALID[name])) if name in VALID else contents

    @few(60)
    @given(st.one_of(contents, mine))
    def check(content):
        file = folder / f"{name}.file"
        file.write_bytes(content)
        outcome(read, file)

    check()


def saved(**options):
    file = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(2, 3), "b": torch.zeros(4)}, "epoch": 1}, file, **options)
    return file.getvalue()


CHECKPOINTS = {
    "safetensors": save({"a": torch.ones(2, 3)}),
    "torch": saved(),
    "legacy": saved(_use_new_zipfile_serialization=False),
    "tar": hostile.tar_bytes([("pickle", b"0", b"]."), ("storages", b"0", b""), ("sys_info", b"0", b"")]),
    "npz": hostile.zip_bytes({"a.npy": hostile.npy_bytes(hostile.ARRAYS[0])}),
    "zip": hostile.zip_bytes({"x/data.pkl": b"]."}),
    "index": json.dumps({"weight_map": {"a": "x.pt"}}).encode(),
}


@pytest.mark.parametrize("form", CHECKPOINTS)
def test_checkpoints_of_others(form, folder):
    @few(60)
    @given(st.one_of(hostile.cut(st.just(CHECKPOINTS[form])), hostile.safetensors_files(["format"]), hostile.plain()))
    def check(content):
        file = folder / ("m.index.json" if form == "index" else "x.pt")
        file.write_bytes(content)
        outcome(weights_file.read_tensors, file)

    check()


def test_pickles_of_others(folder):
    @few(300)
    @given(hostile.pickle_files())
    def check(content):
        file = folder / "x.pt"
        file.write_bytes(content)
        outcome(weights_file.read_tensors, file)

    check()


@pytest.mark.parametrize("dtype", hostile.DTYPES)
def test_dtypes_of_others(dtype, folder):
    file = folder / "x.safetensors"
    for name in ("w", "text_embeddings"):
        file.write_bytes(hostile.of_dtype(name, dtype))
        outcome(weights_file.read_tensors, file)
        outcome(precomputed.load, ModelCard(name="x", title="x", family="precomputed", source="x"), file, Runtime())


def test_configurations_of_others(folder):
    home = folder / "configured"
    home.mkdir()
    (home / "open_clip_model.safetensors").write_bytes(CHECKPOINTS["safetensors"])
    keys = {"model_cfg", "preprocess_cfg", "vision_cfg", "text_cfg", "layers", "width", "image_size", "embed_dim"}
    keys |= {"model_type", "auto_map", "AutoModel", "architectures", "quick_gelu", "hf_model_name", "timm_model_name"}
    options = open_clip_source.Options()

    @few(100)
    @given(hostile.json_files(keys))
    def check(content):
        (home / "open_clip_config.json").write_bytes(content)
        (home / "config.json").write_bytes(content)
        outcome(open_clip_source.find, options, home, "x")
        checkpoint_folder = Folder(home, home / "open_clip_model.safetensors", "x")
        settings = outcome(checkpoint_folder.json, "config.json")
        if settings is not None:
            outcome(trusts, checkpoint_folder, settings, None)

    check()


@few(60)
@given(hostile.plain(), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBP"]))
def test_images(content, magic):
    with tempfile.TemporaryDirectory() as path:
        file = Path(path) / "a.jpg"
        file.write_bytes(magic + content)
        outcome(ImageItem.file("a", file).open)
