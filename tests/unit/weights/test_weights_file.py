import argparse
import hashlib
import io
import json
import os
import pickle
import shlex
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sparc_bench.errors import UserError
from sparc_bench.weights import weights_file
from sparc_bench.weights.weights_file import file_sha256, load_into, read_tensors, refuse_escaping_members

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([0.5, -2.0], dtype=torch.float16)}


class Hostile:
    """Makes the file `ran` in the working directory when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    """Everything runs in an empty folder, so that whatever is written or executed is seen."""
    monkeypatch.chdir(tmp_path)


def legacy(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def refused(path, match):
    """The sentence of a refusal; nothing was written, nothing ran."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError, match=match) as caught:
        read_tensors(Path(path))
    assert sorted(Path().rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def convert(sentence):
    """Run the command that ends a sentence, here rather than in a new interpreter; returns the file that it wrote."""
    command, option, code, source, converted = shlex.split(sentence[sentence.index("python -c") :])
    assert (command, option) == ("python", "-c")
    argv, sys.argv = sys.argv, ["-c", source, converted]
    try:
        exec(compile(code, "-c", "exec"), {})
    finally:
        sys.argv = argv
    return Path(converted)


def assert_same(found, expected=TENSORS):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("save", [save_file, torch.save, legacy], ids=["safetensors", "zip", "legacy"])
def test_three_formats_are_told_by_content_and_keep_their_dtypes(save):
    save(TENSORS, "weights.whatever")
    assert_same(read_tensors(Path("weights.whatever")))


def test_what_wraps_a_model_is_taken_off():
    prefixed = {f"module._orig_mod.{name}": tensor for name, tensor in TENSORS.items()}
    for key in ("state_dict", "model_state_dict", "model"):
        torch.save({key: prefixed, "optimizer": {"exp_avg": torch.ones(3)}, "epoch": 3}, "x.pt")
        assert_same(read_tensors(Path("x.pt")))
    compiled_part = {"a._orig_mod.weight": TENSORS["a.weight"], "a.bias": torch.nn.Parameter(TENSORS["a.bias"])}
    torch.save({"model": {"state_dict": compiled_part}}, "x.pt")
    assert_same(read_tensors(Path("x.pt")))
    assert not read_tensors(Path("x.pt"))["a.bias"].requires_grad


def test_lightning_and_averaging_are_taken_off():
    lightning = {f"model.{name}": tensor for name, tensor in TENSORS.items()}
    torch.save({"state_dict": lightning, "pytorch-lightning_version": "2.4", "loops": {}}, "x.ckpt")
    assert_same(read_tensors(Path("x.ckpt")))
    compiled = {f"model._orig_mod.module.{name}": tensor for name, tensor in TENSORS.items()}
    torch.save({"state_dict": compiled}, "x.ckpt")
    assert_same(read_tensors(Path("x.ckpt")))
    model = torch.nn.Linear(2, 3)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    torch.save(averaged.state_dict(), "x.pt")
    assert_same(read_tensors(Path("x.pt")), model.state_dict())


def test_a_model_whose_own_names_begin_as_a_wrapper_does_is_loaded():
    whole = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 3)})
    torch.save(whole.state_dict(), "x.pt")
    again = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 3)})
    load_into(again, read_tensors(Path("x.pt")), Path("x.pt"))
    assert torch.equal(again["model"].weight, whole["model"].weight)


def test_a_model_with_a_part_called_module_keeps_its_names():
    tensors = {"module.weight": torch.ones(1), "head": torch.ones(1)}
    torch.save(tensors, "x.pt")
    assert_same(read_tensors(Path("x.pt")), tensors)


def test_a_tensor_under_two_names_that_become_one_is_refused():
    torch.save({"_orig_mod.a": torch.zeros(1), "a": torch.ones(1)}, "x.pt")
    refused("x.pt", "with and without '_orig_mod.'")


def test_tied_and_transposed_tensors():
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": shared, "b": shared, "c": shared.T}, "x.pt")
    assert_same(read_tensors(Path("x.pt")), {"a": shared, "b": shared, "c": shared.T})


def test_shards_by_index_or_by_folder():
    names = sorted(TENSORS)
    for number, name in enumerate(names):
        save_file({name: TENSORS[name]}, f"part{number}.safetensors")
    index = Path("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {name: f"part{n}.safetensors" for n, name in enumerate(names)}}))
    assert_same(read_tensors(index))
    assert_same(read_tensors(Path()))
    whole = file_sha256(index)
    assert whole == file_sha256(Path())
    save_file({names[0]: TENSORS[names[0]] + 1}, "part0.safetensors")
    assert file_sha256(index) != whole
    Path("part1.safetensors").unlink()
    refused(index, "part1.safetensors is missing: copy or download all 2 shards")
    index.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    refused(index, r"names '\.\./x\.safetensors' as a shard")
    index.write_text("{}")
    refused(index, "no index of a sharded checkpoint")


def test_a_folder_holds_one_checkpoint_or_says_which():
    torch.save(TENSORS, "pytorch_model.bin")
    assert_same(read_tensors(Path()))
    save_file(TENSORS, "model.safetensors")
    assert_same(read_tensors(Path()))
    save_file(TENSORS, "other.safetensors")
    refused(".", r"holds model\.safetensors and other\.safetensors: name the file itself")
    Path("empty").mkdir()
    refused("empty", "holds no checkpoint")
    refused("absent.pt", "There are no weights at absent.pt: check the path")


@pytest.mark.parametrize("save", [torch.save, legacy], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: {"state_dict": TENSORS, "x": x}], ids=["bare", "beside weights"]
)
def test_a_hostile_checkpoint_is_refused_unread(save, wrap):
    save(wrap(Hostile()), "x.pt")
    refused(
        "x.pt", r"only be unpickled, which runs any code in it \(posix\.mkdir\): if you trust its source, convert it"
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_bare_pickle_is_refused_unread(protocol):
    Path("x.pt").write_bytes(pickle.dumps({"model": Hostile()}, protocol))
    refused("x.pt", r"runs any code in it \(posix\.mkdir\)")


def test_the_code_that_a_pickle_asks_for_is_named_up_to_three():
    Path("x.pkl").write_bytes(pickle.dumps({"args": argparse.Namespace(), "path": Path(), "dtype": np.dtype("i4")}, 4))
    assert "(argparse.Namespace, pathlib." in refused("x.pkl", "runs any code")
    Path("x.pkl").write_bytes(pickle.dumps([print, len, exec, eval], 2))
    refused("x.pkl", r"\(__builtin__.print, __builtin__.len, __builtin__.exec, \.\.\.\)")


def test_a_name_that_would_play_with_the_terminal_is_quoted():
    Path("x.pkl").write_bytes(b"\x80\x04\x8c\x01a\x8c\x05b\x1b[2J\x93.")
    assert r"('a.b\x1b[2J')" in refused("x.pkl", "runs any code")


def test_the_conversion_of_pickled_code_works():
    model = torch.nn.Linear(2, 2)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    args = argparse.Namespace(lr=1)
    for number, checkpoint in enumerate(
        [model, {"model": model}, {"state_dict": state, "args": args}, {"model": state, "best": np.float64(0.5)}]
    ):
        for save in (torch.save, legacy):
            source = Path(f"it's {number}{save.__name__}.pt")
            save(checkpoint, source)
            converted = convert(refused(source, "convert it once and name the new file: python -c"))
            assert converted == source.with_suffix(".safetensors")
            assert_same(read_tensors(converted), state)


def test_the_conversion_of_a_bare_pickle_of_arrays_works():
    array = np.arange(3, dtype=np.float32)
    Path("x.pkl").write_bytes(pickle.dumps({"model": {"w": array}, "__author__": "somebody"}))
    converted = convert(refused("x.pkl", "pickle.loads"))
    assert_same(read_tensors(converted), {"w": torch.from_numpy(array)})


@pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated")  # but the archives of others are made with it
def test_torchscript_is_refused_with_a_command_that_converts_it():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    torch.jit.trace(model, torch.zeros(1, 2)).save("my model.pt")
    sentence = refused(
        "my model.pt", "is a TorchScript archive, a program rather than weights: if you trust its source"
    )
    assert convert(sentence) == Path("my model.safetensors")
    assert_same(read_tensors(Path("my model.safetensors")), dict(model.state_dict()))


@pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated")  # but the archives of others are made with it
def test_a_conversion_overwrites_nothing():
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save("x.safetensors")
    assert refused("x.safetensors", "TorchScript").endswith(" x.safetensors x.converted.safetensors")
    torch.save(Hostile(), "x.pt")
    assert refused("x.pt", "unpickled").endswith(" x.pt x.converted.safetensors")


@pytest.mark.parametrize("save", [save_file, torch.save, legacy], ids=["safetensors", "zip", "legacy"])
def test_a_file_cut_anywhere_is_refused_as_damaged(save):
    save(TENSORS, "whole.pt")
    content = Path("whole.pt").read_bytes()
    for length in [0, 1, 8, 40, *range(50, len(content), 97), len(content) - 1]:
        Path("cut.pt").write_bytes(content[:length])
        refused("cut.pt", r"is truncated, damaged or no checkpoint \(.+\): copy or download it again\.$")


def test_what_is_no_checkpoint_says_what_it_is():
    for content, match in [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer .* git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "web page instead of the weights"),
        (b"\0" * 5000, "truncated, damaged or no checkpoint"),
        (b"some words of no format at all", "neither safetensors nor of torch.save"),
    ]:
        Path("x").write_bytes(content)
        refused("x", match)
    np.savez("x.npz", a=np.zeros(2))
    refused("x.npz", r"is an archive \(of 'a\.npy'\): unpack it and name the file of weights in it")
    torch.save([1, 2], "x.pt")
    refused("x.pt", r"holds a list and no named tensors: save the model's state_dict\(\)")
    torch.save({"epoch": 3, "args": "words"}, "x.pt")
    refused("x.pt", "holds 'epoch', 'args' and no tensors by name")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.complex64])
def test_values_that_are_not_finite_are_refused_by_name(bad, dtype):
    tensor = torch.zeros(3, 4, dtype=dtype)
    tensor[1, 2] = bad
    torch.save({"fine": torch.ones(2), "broken.weight": tensor}, "x.pt")
    refused("x.pt", "x.pt: 1 of 12 values of 'broken.weight' are NaN or infinite: take an earlier checkpoint")


def test_minus_infinity_belongs_in_an_attention_mask():
    mask = torch.full((2, 2), float("-inf")).triu(1)
    torch.save({"text.attn_mask": mask, "number": torch.tensor(7)}, "x.pt")
    assert_same(read_tensors(Path("x.pt")), {"text.attn_mask": mask, "number": torch.tensor(7)})
    torch.save({"text.attn_mask": -mask}, "x.pt")
    refused("x.pt", "NaN or infinite")


def test_eight_bit_floats_are_read_and_sparse_tensors_refused():
    tensor = torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn)
    save_file({"a": tensor}, "x.pt")
    assert read_tensors(Path("x.pt"))["a"].dtype == torch.float8_e4m3fn
    for odd in (torch.eye(2).to_sparse(), torch.empty(2, device="meta")):
        torch.save({"odd": odd}, "x.pt")
        refused("x.pt", "'odd' is a sparse, quantised or empty tensor")


@pytest.mark.parametrize("save", [save_file, torch.save, legacy], ids=["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_quantised_weights_are_refused_by_name(save, dtype):
    save({"fine": torch.ones(2), "a.weight": torch.zeros(3, 4).to(dtype)}, "x.pt")
    refused("x.pt", f"'a.weight' is quantised .{str(dtype)[6:]}., and its numbers mean nothing without their scales")
    save({"fine": torch.ones(2), "attn_mask": torch.zeros(3, 4).to(dtype), "n": torch.tensor([3]).to(dtype)}, "x.pt")
    read_tensors(Path("x.pt"))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.bool])
def test_whole_numbers_are_no_weights(dtype):
    save_file({"weight": torch.ones(2, 3).to(dtype), "bias": torch.ones(2)}, "x.pt")
    with pytest.raises(UserError, match=r"'weight' holds whole numbers .* where the model has fractions"):
        load_into(torch.nn.Linear(3, 2), read_tensors(Path("x.pt")), Path("x.pt"))


@pytest.mark.parametrize("other", ["state_dict_ema", "ema", "model_ema", "EMA_state_dict", "swa_state_dict"])
def test_averaged_weights_beside_those_that_are_taken_are_said(other, capsys):
    torch.save({"state_dict": TENSORS, other: TENSORS, "epoch": 1}, "x.pt")
    assert_same(read_tensors(Path("x.pt")))
    said = capsys.readouterr().err
    assert f"x.pt holds '{other}' beside 'state_dict', and the weights of 'state_dict' are taken" in said
    assert said.count("\n") == 1


def test_other_parts_of_a_checkpoint_are_not_said(capsys):
    torch.save({"model": TENSORS, "optimizer": {"a": 1}, "schema": {}, "ema_decay": 0.9}, "x.pt")
    read_tensors(Path("x.pt"))
    assert capsys.readouterr().err == ""


def test_a_model_is_filled_or_the_other_architecture_named():
    model = torch.nn.Linear(3, 2)
    tensors = {"weight": TENSORS["a.weight"], "bias": TENSORS["a.bias"]}
    torch.save({"model": {f"module.{name}": tensor for name, tensor in tensors.items()}}, "x.pt")
    load_into(model, read_tensors(Path("x.pt")), Path("x.pt"))
    assert_same(dict(model.state_dict()), {name: tensor.float() for name, tensor in tensors.items()})
    for odd, match in [
        (
            {"weight": tensors["weight"]},
            r"another architecture, it lacks 'bias' \(1 such\): name the weights of a Linear",
        ),
        ({**tensors, "b": tensors["bias"], "c": tensors["bias"]}, r"it has an unknown 'b' \(2 such\)"),
        ({**tensors, "bias": torch.ones(3)}, r"'bias' is \(3,\) instead of \(2,\): build the Linear with the sizes"),
    ]:
        with pytest.raises(UserError, match=match):
            load_into(model, odd, Path("x.pt"))


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "C:\\out", "..\\out", "\\\\server\\out"])
def test_archives_with_paths_that_leave_their_folder_are_refused(name):
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr(name, b"")
    sentence = refused("x.zip", "path that leaves its folder")
    assert repr(name) in sentence
    with pytest.raises(UserError, match="leaves its folder"):
        refuse_escaping_members(Path("x.zip"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_archive_cut_anywhere_is_refused(mode):
    with tarfile.open("whole", mode) as tar:
        member = tarfile.TarInfo("weights.pt")
        member.size = 40_000
        tar.addfile(member, io.BytesIO(np.random.default_rng(0).bytes(member.size)))
    content = Path("whole").read_bytes()
    for length in range(20, len(content), 4999):
        Path("cut").write_bytes(content[:length])
        refused("cut", "is truncated, damaged or no checkpoint|is an archive")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar_archives_are_checked_and_refused(mode):
    def archive(*members):
        with tarfile.open("x.tar", mode) as tar:
            for member in members:
                tar.addfile(member, io.BytesIO(b"."))

    archive(tarfile.TarInfo("../out"))
    refused("x.tar", "path that leaves its folder")
    link = tarfile.TarInfo("inside")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archive(link)
    refused("x.tar", "path that leaves its folder")
    archive(tarfile.TarInfo("folder/weights.pt"))
    refused("x.tar", r"is an archive \(of 'folder/weights\.pt'\): unpack it")
    archive(tarfile.TarInfo("sys_info"), tarfile.TarInfo("pickle"), tarfile.TarInfo("storages"))
    refused("x.tar", "only be unpickled")


def test_archives_that_stay_in_their_folder_and_other_files_pass():
    np.savez("x.npz", **{"a..b": np.zeros(1)})
    torch.save(TENSORS, "x.pt")
    Path("words").write_text("no archive")
    for name in ("x.npz", "x.pt", "words"):
        refuse_escaping_members(Path(name))


def test_sha256_of_a_file_is_that_of_its_bytes_and_is_read_once(monkeypatch):
    file = Path("x.pt")
    file.write_bytes(b"content")
    assert file_sha256(file) == hashlib.sha256(b"content").hexdigest()
    reads = []
    digest = weights_file.file_digest
    monkeypatch.setattr(weights_file, "file_digest", lambda *args: reads.append(args) or digest(*args))
    assert file_sha256(file) == hashlib.sha256(b"content").hexdigest()
    assert not reads
    file.write_bytes(b"another")
    os.utime(file, ns=(1, 1))
    assert file_sha256(file) == hashlib.sha256(b"another").hexdigest()
    assert len(reads) == 1


def test_sha256_of_a_folder_without_a_checkpoint_is_of_all_its_files():
    folder = Path("embeddings")
    (folder / "sub").mkdir(parents=True)
    (folder / "image.npy").write_bytes(b"1")
    (folder / "sub" / "ids.txt").write_bytes(b"2")
    (folder / ".DS_Store").write_bytes(b"3")
    before = file_sha256(folder)
    (folder / ".DS_Store").write_bytes(b"4")
    assert file_sha256(folder) == before
    (folder / "sub" / "ids.txt").rename(folder / "ids.txt")
    assert file_sha256(folder) != before
