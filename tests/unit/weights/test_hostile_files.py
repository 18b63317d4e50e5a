"""Checkpoints of an attacker: a sentence in bounded time and memory, whatever they hold."""

import collections
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sparc_bench.cards import discovery
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cli.app import main
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import open_clip, own, precomputed
from sparc_bench.encoders._transformers_folder import Folder, trusts
from sparc_bench.errors import UserError
from sparc_bench.files.tensor_file import write_tensors
from sparc_bench.two_towers import checkpoint
from sparc_bench.weights import unsafe_weights
from sparc_bench.weights.weights_file import read_tensors
from tests.toys.limits import limited

pytestmark = pytest.mark.slow

KEPT = discovery.cards_folder("reference_models") / "weights/scenes_clip.safetensors"
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bounded():
    """The test takes under 1 GiB more memory than before it, at its peak, and under a minute."""
    with limited(60, 1):
        yield


def zip_of(path, members, packed=False):
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind, compresslevel=1) as archive:
        for name, content in members.items():
            with archive.open(name, "w") as file:
                for part in [content] if isinstance(content, bytes) else content:
                    file.write(part)


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        read_tensors(Path(path))
    assert len(str(caught.value)) < 2000


def test_a_state_dict_that_contains_itself():
    state = {}
    state["state_dict"] = state
    torch.save(state, "x.pt")
    refused("x.pt", "holds a 'state_dict' within a 'state_dict' over and over")


def test_tensors_that_repeat_what_they_store(bounded):
    torch.save({"w": torch.zeros(1).expand(100_000, 100_000)}, "x.pt")
    refused("x.pt", r"'w' is \(100000, 100000\), but has 4 bytes, which are repeated")


def test_a_pickle_that_inflates(bounded):
    zip_of("x.pt", {"x/data.pkl": (b"]" * 2**20 for _ in range(200)), "x/version": b"3"}, packed=True)
    refused("x.pt", "over 100 times as many")
    zip_of("x.pt", {"x/data.pkl": b"]" * 2**20, "x/version": b"3"}, packed=True)
    refused("x.pt", "packed archive, which torch.save never writes")


def test_a_pickle_of_more_operations_than_any_model_has(bounded, monkeypatch):
    zip_of("x.pt", {"x/data.pkl": b"]" * (65 * 2**20), "x/version": b"3"})
    refused("x.pt", "lists its tensors in over 3,000,000 operations")
    monkeypatch.setattr(unsafe_weights, "MOST_OPERATIONS", 1000)
    zip_of("x.pt", {"x/data.pkl": b"]" * 2000, "x/version": b"3"})
    refused("x.pt", "lists its tensors in over 1,000 operations")
    torch.save({"a": [[]] * 2000}, "old.pt", _use_new_zipfile_serialization=False)
    refused("old.pt", "lists its tensors in over 1,000 operations")
    Path("bare.pkl").write_bytes(pickle.dumps({"a": [Path()] * 2000}))
    refused("bare.pkl", "only be unpickled")


def test_members_that_lie_over_each_other():
    zip_of("x.pt", {"x/data.pkl": b"." * 1000, "x/y": b"." * 100_000})
    content = Path("x.pt").read_bytes()
    at = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    many = content[at:end] * 20
    tail = bytearray(content[end:])
    tail[8:12] = (22).to_bytes(2, "little") * 2
    tail[12:16] = (end - content.index(b"PK\x01\x02") + len(many)).to_bytes(4, "little")
    Path("x.pt").write_bytes(content[:end] + many + tail)
    refused("x.pt", "packed archive|truncated, damaged|no checkpoint")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_tar_that_links_to_itself(kind):
    with tarfile.open("x.tar", "w") as tar:
        for name in ("pickle", "storages"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, name
            tar.addfile(member)
    refused("x.tar", "only be unpickled")


def test_a_tar_that_inflates(bounded):
    with tarfile.open("x.tar", "w:gz", compresslevel=1) as tar:
        for name in ("a", "b"):
            member = tarfile.TarInfo(name)
            member.size = 200 * 2**20
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    refused("x.tar", "unpacks to more than 64 MiB")


@pytest.mark.parametrize("shard", ["a\0b", "x" * 5000, ["list"], 3, None, "."])
def test_shards_with_odd_names(shard):
    Path("m.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    refused("m.index.json", "as a shard|no index|is incomplete|missing")


@pytest.mark.parametrize("text", [DEEP, "[]", "1", '{"weight_map": []}', '{"weight_map": 3}', "\x80", "9" * 5000])
def test_an_index_that_is_none(text):
    Path("m.index.json").write_text(text, encoding="latin-1")
    refused("m.index.json", "no index of a sharded checkpoint")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": ["clip"]}, "model_type or auto_map of another type"),
        ({"model_type": {}}, "model_type or auto_map of another type"),
        ({"model_type": "mine", "auto_map": ["x"]}, "model_type or auto_map of another type"),
        ({"vision_config": {"num_hidden_layers": 10**9}}, "'num_hidden_layers' is 1,000,000,000, as no model has it"),
        ({"text_config": {"hidden_size": 10**9}}, "describes a model of over|as no model has it"),
        ({"text_config": {"hidden_size": 50_000, "num_hidden_layers": 100}}, "describes a model of over"),
        ({"text_config": {"vocab_size": 10**30}}, "as no model has it"),
        ({"model_type": "timm_wrapper", "architecture": "hf-hub:a/b"}, "which timm would fetch from the hub"),
    ],
)
def test_configurations_of_transformers(change, sentence):
    pytest.importorskip("transformers")
    Path("model.safetensors").write_bytes(b"x" * 100)
    folder = Folder(Path(), Path("model.safetensors"), "mine")
    with pytest.raises(UserError, match=sentence):
        trusts(folder, {"model_type": "clip", **change}, None)
    Path("config.json").write_text(DEEP)
    with pytest.raises(UserError, match="nested too deep"):
        folder.json("config.json")


def tiny(**changes):
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    return {"model_cfg": {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text} | changes}


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        "[]",
        "{}",
        json.dumps({"model_cfg": 3}),
        json.dumps({"model_cfg": {"vision_cfg": [], "text_cfg": 3}}),
        json.dumps(tiny(vision_cfg={"layers": 10**9, "width": 64, "patch_size": 16, "image_size": 32})),
        json.dumps(tiny(vision_cfg={"layers": 12, "width": 10**6, "patch_size": 16, "image_size": 32})),
        json.dumps(tiny(vision_cfg={"layers": "many", "width": [], "patch_size": {}, "image_size": None})),
        json.dumps(tiny(vision_cfg={"timm_model_name": "hf-hub:a/b", "image_size": 32})),
        json.dumps(tiny(text_cfg={"layers": 1, "width": 64, "vocab_size": 10**9})),
        json.dumps({**tiny(), "preprocess_cfg": {"size": "big", "mean": 3}}),
        json.dumps({**tiny(), "preprocess_cfg": []}),
    ],
)
def test_configurations_of_open_clip(content):
    Path("open_clip_config.json").write_text(content)
    save_file({"a": torch.zeros(1)}, "open_clip_model.safetensors")
    card = ModelCard(name="x", title="x", family="open_clip", source="x")
    with pytest.raises(UserError):
        open_clip.load(card, Path(), Runtime())


SIZES = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}


@pytest.mark.parametrize(
    "change",
    [
        {"vision_cfg": {**SIZES, "layers": [10**6] * 4}},
        {"vision_cfg": {**SIZES, "layers": [300] * 4}},
        {"vision_cfg": {**SIZES, "image_size": 10**6, "patch_size": 1}},
        {"vision_cfg": {**SIZES, "image_size": [10**6, 10**6], "patch_size": [2, 2]}},
        {"vision_cfg": {**SIZES, "mlp_ratio": 1e9}},
        {"vision_cfg": {**SIZES, "mlp_ratio": float("inf")}},
        {"vision_cfg": {**SIZES, "attentional_pool": True, "attn_pooler_queries": 2**30, "attn_pooler_heads": 2}},
        {"text_cfg": {"context_length": 2 * 10**9, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}},
        {"text_cfg": {"context_length": 10**5, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}},
    ],
)
def test_sizes_of_towers_that_no_checkpoint_has(change, bounded):
    Path("open_clip_config.json").write_text(json.dumps(tiny(**change)))
    save_file({"a": torch.zeros(1)}, "open_clip_model.safetensors")
    card = ModelCard(name="x", title="x", family="open_clip", source="x")
    with pytest.raises(UserError, match=r"as no model has it|describes a model of over"):
        open_clip.load(card, Path(), Runtime())


def test_sizes_of_all_known_models():
    import open_clip as library

    from sparc_bench.weights.configuration import refuse_absurd

    Path("x").write_bytes(b"")
    with Path("x").open("r+b") as file:
        file.truncate(100 * 2**20)  # far less than any of them
    for name in library.list_models():
        config = library.get_model_config(name)
        if config["vision_cfg"].get("width", 0) <= 1024 and "xxlarge" not in name:
            refuse_absurd(config, name, Path("x"))


def own_checkpoint(**changes):
    meta, tensors = checkpoint.read(KEPT)
    strings = {**meta.to_strings(), **changes}
    write_tensors(tensors, {key: value for key, value in strings.items() if value is not None}, Path("m"))
    return Path("m")


def recipe(**changes):
    values = json.loads(checkpoint.read_meta(KEPT).to_strings()["recipe"])
    for key, value in changes.items():
        side, _, key = key.partition("_")
        values[side][key] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"recipe": None}, "lacks 'recipe' in its metadata"),
        ({"step": None}, "lacks 'step' in its metadata"),
        ({"seed": "many"}, "metadata that sparc-bench never writes"),
        ({"seed": "-1"}, "metadata that sparc-bench never writes"),
        ({"step": "1e400"}, "metadata that sparc-bench never writes"),
        ({"recipe": "[]"}, "no table of keys"),
        ({"recipe": DEEP}, "metadata that sparc-bench never writes"),
        ({"recipe": "{"}, "metadata that sparc-bench never writes"),
        ({"train_words": "[]"}, "metadata that sparc-bench never writes"),
        ({"train_words": DEEP}, "metadata that sparc-bench never writes"),
        ({"tokenizer": "{}"}, "vocabulary of the checkpoint is damaged"),
        ({"tokenizer": "\0"}, "vocabulary of the checkpoint is damaged"),
        ({"tokenizer": '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}'}, "vocabulary"),
        ({"recipe": recipe(image_depth=10**9)}, "image.depth"),
        ({"recipe": recipe(image_width=8190, image_depth=24)}, "describes a model of over"),
        ({"recipe": recipe(image_model="hf-hub:a/b")}, "timm's own"),
        ({"start": "[]"}, "no table of keys"),
    ],
)
def test_checkpoints_of_our_own(changes, sentence):
    card = ModelCard(name="x", title="x", family="own", source="x")
    with pytest.raises(UserError, match=sentence):
        own.load(card, own_checkpoint(**changes), Runtime())


def test_a_run_from_a_hostile_start():
    meta = checkpoint.read_meta(KEPT)
    start = {"model": "x", "weights_hash": "", "trained_on": [], "heads": {}}
    for config in ({}, {"vision_cfg": {}, "text_cfg": {}}, {"vision_cfg": 3, "text_cfg": []}):
        towers = {"kind": "open_clip", "config": config, "preprocess": {}}
        file = own_checkpoint(start=json.dumps({**start, "towers": towers}), recipe=meta.recipe.model_dump_json())
        with pytest.raises(UserError):
            own.load(ModelCard(name="x", title="x", family="own", source="x"), file, Runtime())


def test_a_recipe_that_would_reach_for_the_hub(capsys):
    source = discovery.cards_folder("reference_models") / "scenes_clip.toml"
    Path("mine.toml").write_text(source.read_text().replace("vit_tiny_patch16_224", "hf-hub:somebody/model"))
    assert main(["train", "mine.toml"]) == 2
    assert "hf-hub: and local-dir: would be fetched or read unasked" in capsys.readouterr().err


def test_embeddings_that_inflate(bounded):
    def npy():
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (51200, 1024)})
        yield header.getvalue()
        yield from (bytes(2**20) for _ in range(200))

    zip_of("x.npz", {"image_embeddings.npy": npy()}, packed=True)
    card = ModelCard(name="x", title="x", family="precomputed", source="x")
    with pytest.raises(UserError, match="over 100 times as many"):
        precomputed.load(card, Path("x.npz"), Runtime())


@pytest.mark.parametrize(
    "header",
    [b"{", b"[]", b"'" * 5000, b"{'descr': [[[]]], 'fortran_order': 0, 'shape': ()}", b"(" * 9000, b"\0" * 60, b"1/0"],
)
def test_arrays_with_odd_headers(header):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    Path("image_embeddings.npy").write_bytes(content)
    zip_of("x.npz", {"image_embeddings.npy": content})
    card = ModelCard(name="x", title="x", family="precomputed", source="x")
    for file in ("image_embeddings.npy", "x.npz"):
        with pytest.raises(UserError, match="truncated or damaged"):
            precomputed.load(card, Path(file), Runtime())


def pickled(*operations):
    """A torch.save archive with a pickle of these operations."""
    zip_of("x.pt", {"x/data.pkl": b"\x80\x02" + b"".join(operations) + b".", "x/version": b"3\n"})


def text(word):
    return b"X" + len(word.encode()).to_bytes(4, "little") + word.encode()


def gets(count, operation=b"\x86"):
    """Empty tuple or list, then a pair of the last with itself, again and again."""
    return b"q\0" + b"".join(b"h" + bytes([k]) + operation + b"q" + bytes([k + 1]) for k in range(count))


NUMBER = b"\x8a\x05" + (3 * 10**9).to_bytes(5, "little")
CUT = b"\xff"


@pytest.mark.parametrize(
    ("operations", "sentence"),
    [
        ((b"})", gets(60), b"K\x01s"), "nests tuples more than 16 deep"),
        ((b"}", text("a"), b")", gets(60), b"s"), "nests tuples more than 16 deep"),
        ((b"}", b")" + b"\x85" * 200_000, b"K\x01s"), "nests tuples more than 16 deep"),
        ((b"})q\0(", b"h\0" * 1999, b"tq\x01", b"(" + b"h\x01" * 1999, b"tq\2", b"K\1s"), "repeats its keys"),
        ((b"}", text("a"), b"c__builtin__\nbytearray\n", NUMBER, b"\x85Rs"), r"runs any code in it \(__builtin__.byt"),
        ((b"}", text("a"), b"cbuiltins\nbytearray\n", NUMBER, b"\x85Rs"), r"runs any code in it \(builtins.bytearray"),
        ((b"}", text("a"), b"cbuiltins\nbytearray\n", NUMBER, b"\x85R", CUT), "its pickle breaks off"),
        ((b"}", text("a"), b"ctorch\nFloatTensor\n", NUMBER, b"\x85Rs"), r"\(torch.FloatTensor"),
        ((b"}", text("a"), b"ctorch.storage\nUntypedStorage\n", NUMBER, b"\x85\x81s"), r"\(torch.storage.Unt"),
        ((b"}", text("a"), b"c_codecs\nencode\n", text("é"), text("punycode"), b"\x86Rs"), r"\(_codecs.encode"),
        ((b"])R",), "can only be unpickled|calls what is no function"),
        ((b"}q\1c" + b"y" * 10**6 + b"\nz\n)Rs",), "can only be unpickled"),
    ],
)
def test_pickles_that_take_time_memory_or_stack(operations, sentence, bounded):
    pickled(*operations)
    refused("x.pt", sentence)


def test_pickles_of_trainings():
    """Sets, bytes, counters and shapes beside the tensors are read as ever."""
    state = {"w": torch.nn.Parameter(torch.ones(2)), "v": torch.ones(3).to(torch.bfloat16)}
    extra = {"seen": {1, 2}, "raw": b"\x80", "n": collections.Counter("ab"), "shape": torch.Size([2]), (1, "a"): 3j}
    for old in (True, False):
        torch.save({"state_dict": state, **extra}, "x.pt", _use_new_zipfile_serialization=old)
        assert list(read_tensors(Path("x.pt"))) == ["w", "v"]


def safetensors(path, tensors, size):
    header = json.dumps(tensors).encode()
    Path(path).write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))


def test_dtypes_that_torch_does_not_compute_with():
    safetensors("x.safetensors", {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, 1)
    refused("x.safetensors", "'a' is of dtype F4, with which torch does not compute")


@pytest.mark.parametrize("value", [torch.zeros(1) / 0, 3])
def test_names_of_a_million_letters(value):
    torch.save({"x" * 10**6: value}, "x.pt")
    refused("x.pt", r"xxx\.\.\.xxx")
