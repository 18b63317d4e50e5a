"""Reading of third-party weights without running code.

The first bytes decide the format, not the suffix: safetensors (one file, or the index of several), or a `torch.save`
file, read with `weights_only=True`. Other files are refused in one sentence; nothing is unpickled, unpacked or written.
Torch is imported where a tensor is read: the sha256 of a file takes none.
"""

from __future__ import annotations

import pickle
import re
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import file_digest, sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from sparc_bench.errors import UserError, quoted, shortened
from sparc_bench.files import archives
from sparc_bench.files.json_text import json_value
from sparc_bench.foreign_text import visible
from sparc_bench.weights import unsafe_weights
from sparc_bench.weights.unsafe_weights import NESTED, TORCH_MAGIC

if TYPE_CHECKING:
    from torch import Tensor, nn

_AVERAGES = re.compile(r"(^|_)(ema|swa|averaged?)(_|$)", re.IGNORECASE)

DEEPEST = 8
"""Dictionaries within each other in which a model's tensors are looked for, at most."""

INDEX = ".index.json"
"""Suffix of the index file of a sharded checkpoint."""

FOLDER_FILES = (
    "*.safetensors.index.json",
    "*.safetensors",
    "*.bin.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Patterns of weights files in a folder; the first pattern that finds a file counts."""

WRAPPERS = ("module.", "model.")
"""What data parallelism and averaging, and a module of Lightning, put before the names of a model."""
AVERAGED = "n_averaged"
"""Counter that torch's AveragedModel keeps beside the averaged weights."""

AN_EARLIER_ONE = "take an earlier checkpoint of that training, or copy the file again."
"""What to do about weights that are not finite."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name in the model -> tensor, on the CPU in the file's own dtypes, of all tensors of a checkpoint.

    Of a training checkpoint the model's part is read (`NESTED`); name parts of wrappers are removed: `module.` of data
    parallelism or averaging, `model.` of Lightning, `_orig_mod.` of torch.compile.

    Args:
        path: a file, the index of a sharded checkpoint, or a folder that holds one checkpoint.

    Raises:
        UserError: a missing, damaged or unsafe file, a file without tensors, or values that are not finite (-inf is
            allowed in attention masks).
    """
    found: dict[str, Any] = {}
    for part in _parts(path):
        found |= _load(part)
    tensors = _model_names(_model_part(found, path), path)
    for name, tensor in tensors.items():
        refuse_odd_values(path, name, tensor)
    return tensors


def refuse_odd_values(path: Path, name: str, tensor: Tensor, remedy: str = AN_EARLIER_ONE) -> None:
    """Raise UserError for sparse, quantised, empty or repeated tensors, and for NaN or infinite values.

    -inf passes in masks.
    """
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise UserError(f"{path}: {quoted(name)} is a sparse, quantised or empty tensor: save it as a dense one.")
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise UserError(
            f"{path}: {quoted(name)} is {tuple(tensor.shape)}, but has {tensor.untyped_storage().nbytes():,} bytes, "
            "which are repeated: save it with .contiguous(), or take the file from its authors anew."
        )
    last = name.rpartition(".")[2]
    if tensor.dtype in (torch.uint8, torch.int8) and tensor.numel() > 1 and "mask" not in last:
        raise UserError(
            f"{path}: {quoted(name)} is quantised ({str(tensor.dtype).partition('.')[2]}), and its numbers mean "
            "nothing without their scales: take the checkpoint in float32, float16 or bfloat16."
        )
    if not tensor.is_floating_point() and not tensor.is_complex():
        return
    values = tensor.float() if tensor.itemsize == 1 else tensor
    finite = torch.isfinite(values)
    if "mask" in last:
        finite |= torch.isneginf(values)
    if not finite.all():
        raise UserError(
            f"{path}: {int((~finite).sum())} of {tensor.numel()} values of {quoted(name)} are NaN or infinite: {remedy}"
        )


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load the tensors of a checkpoint into a model, which must have exactly these parameters and buffers.

    Args:
        model: model in its final dtypes and on its final device.
        tensors: tensors by name, as from `read_tensors`.
        path: path of the checkpoint, for the error.

    Raises:
        UserError: the checkpoint belongs to another architecture.
    """
    own = model.state_dict()
    if wrapper := _wrapped_by(own):  # part of the model's own names, and removed by `read_tensors`
        tensors = {wrapper + name if name not in own else name: tensor for name, tensor in tensors.items()}
    for problem, names in (("lacks", own.keys() - tensors.keys()), ("has an unknown", tensors.keys() - own.keys())):
        if names:
            raise UserError(
                f"{path} is of another architecture, it {problem} {quoted(min(names))} ({len(names)} such): name the "
                f"weights of a {type(model).__name__}, or rename their tensors."
            )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"{path} is of another architecture, {quoted(name)} is {tuple(tensor.shape)} instead of "
                f"{tuple(own[name].shape)}: build the {type(model).__name__} with the sizes of these weights."
            )
    refuse_whole_numbers(path, own, tensors)
    model.load_state_dict(tensors)


def file_sha256(path: Path) -> str:
    """Sha256 of a file's bytes; for a sharded checkpoint or a folder: sha256 of the names and sha256 of its files.

    The files of a folder are those that `read_tensors` reads, or all but hidden ones where it holds no checkpoint. The
    sha256 of a file is computed once in a process, and again when its size or modification time changes.

    Raises:
        UserError: the file is missing, or a folder holds two checkpoints.
    """
    if path.is_file() and not path.name.endswith(INDEX):
        return _digest(path, path.stat().st_size, path.stat().st_mtime_ns)
    parts = _parts(path) if not path.is_dir() or _of_folder(path) else _all_files(path)
    home = path if path.is_dir() else path.parent
    listing = sorted(f"{part.relative_to(home).as_posix()} {file_sha256(part)}\n" for part in parts)
    return sha256("".join(listing).encode()).hexdigest()


def refuse_escaping_members(path: Path) -> None:
    """Raise UserError for a zip or tar archive that would unpack outside of its folder, or to far more than its size.

    Raises:
        UserError: a member's path is absolute or has `..`, a link leads out of the folder, the archive inflates or is
            damaged.
    """
    archives.refuse_escaping(path, _members(path))


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed_ns: int) -> str:  # noqa: ARG001 - a changed file is another key
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _parts(path: Path) -> list[Path]:
    """The files with the tensors of a checkpoint."""
    if path.is_dir():
        found = _of_folder(path)
        if not found:
            raise UserError(f"The folder {path} holds no checkpoint (*.safetensors or *.bin): name the file itself.")
        if len(found) > 1:
            raise UserError(f"The folder {path} holds {found[0].name} and {found[1].name}: name the file itself.")
        return _parts(found[0])
    if not path.is_file():
        raise UserError(f"There are no weights at {path}: check the path.")
    return _shards(path) if path.name.endswith(INDEX) else [path]


def _of_folder(path: Path) -> list[Path]:
    """Candidates for the checkpoint of a folder; exactly one file or index where the choice is clear."""
    return next((sorted(path.glob(each)) for each in FOLDER_FILES if any(path.glob(each))), [])


def _all_files(path: Path) -> list[Path]:
    found = [file for file in path.rglob("*") if file.is_file()]
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json_value(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{index} is no index of a sharded checkpoint: copy or download it again.") from None
    for name in names:
        if not isinstance(name, str) or archives.escapes(name):
            raise UserError(f"{index} names {quoted(name)} as a shard: take the checkpoint from its authors anew.")
        if not (index.parent / name).is_file():
            raise UserError(
                f"{index} is incomplete, {quoted(name)[1:-1]} is missing: copy or download all {len(names)} shards."
            )
    return [index.parent / name for name in names]


def _load(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer instead of the weights: fetch them with git lfs pull.")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:  # its length can begin with b"<"
        return _load_safetensors(path)
    if start.lstrip().startswith(b"<"):
        raise UserError(f"{path} is a web page instead of the weights: download the file itself.")
    names = _members(path)
    archives.refuse_escaping(path, names)
    if start.startswith(archives.ZIP) or names:
        _refuse_other_archives(path, names, start.startswith(archives.ZIP))
    return _load_torch(path, start)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: read_tensor(path, opened, name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise _damaged(path, str(error)) from None


def read_tensor(path: Path, opened: Any, name: str) -> Tensor:  # noqa: ANN401 - safetensors has no types
    """A tensor of an opened safetensors file; raises UserError for a dtype that torch or safetensors cannot hold."""
    tensor: Tensor
    try:
        tensor = opened.get_tensor(name)
        if tensor.is_floating_point():
            tensor.reshape(-1)[:1].float()  # packed dtypes cannot
    except (NotImplementedError, AttributeError, KeyError, TypeError):
        raise UserError(
            f"{path}: {quoted(name)} is of dtype {opened.get_slice(name).get_dtype()}, with which torch does not "
            "compute: take the checkpoint in float32, float16 or bfloat16."
        ) from None
    return tensor


def _load_torch(path: Path, start: bytes) -> Mapping[str, Any]:
    import torch

    if not start.startswith(archives.ZIP) and TORCH_MAGIC not in start[:32]:
        if unsafe_weights.is_pickle(path):
            raise unsafe_weights.runs_code(path)
        raise _damaged(path, "neither safetensors nor of torch.save" if start else "it is empty")
    unsafe_weights.refuse_bombs(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about older formats
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if unsafe_weights.is_whole(path):
            raise unsafe_weights.runs_code(path) from None
        raise _damaged(path, "its pickle breaks off") from None
    except Exception as error:  # a hostile or truncated pickle can raise anything
        raise _damaged(path, str(error)) from None
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__} and no named tensors: save the model's state_dict().")
    return found


def _damaged(path: Path, reason: str) -> UserError:
    first = shortened("".join(reason.splitlines()[:1])).rstrip(".") or "it breaks off"
    return UserError(f"{path} is truncated, damaged or no checkpoint ({first}): copy or download it again.")


def _members(path: Path) -> list[str]:
    """Names of the members and targets of the links of a zip or tar archive; empty for any other file."""
    try:
        return archives.members(path)
    except UserError:
        raise
    except Exception as error:  # a hostile or truncated archive can raise anything
        raise _damaged(path, str(error)) from None


def _refuse_other_archives(path: Path, names: Sequence[str], is_zip: bool) -> None:
    """Raise UserError for an archive in another form than that of torch.save since torch 1.6."""
    inner = {name.partition("/")[2] for name in names}
    if is_zip and ("constants.pkl" in inner or any(name.startswith("code/") for name in inner)):
        raise unsafe_weights.torchscript(path)
    if is_zip and "data.pkl" in inner:
        return
    if not is_zip and {"pickle", "storages"} <= set(names):
        raise unsafe_weights.runs_code(path)
    first = ", ".join(map(quoted, names[:3]))
    raise UserError(f"{path} is an archive (of {first}): unpack it and name the file of weights in it.")


def _model_part(found: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    from torch import Tensor

    for _ in range(DEEPEST):
        key = next((key for key in NESTED if isinstance(found.get(key), Mapping)), None)
        if key is None:
            break
        _say_averages(found, key, path)
        found = found[key]
    else:
        raise UserError(f"{path} holds a {key!r} within a {key!r} over and over: save the model's state_dict() anew.")
    tensors = {str(name): value.detach() for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(quoted, islice(found, 5))) or "nothing"
        raise UserError(f"{path} holds {keys} and no tensors by name: save the model's state_dict().")
    return tensors


def _say_averages(found: Mapping[str, Any], taken: str, path: Path) -> None:
    """Print a line where averaged weights lie beside those that are taken."""
    other = next((key for key in found if isinstance(key, str) and _AVERAGES.search(key) and key != taken), None)
    if other is not None and isinstance(found[other], Mapping):
        print(  # noqa: T201 - which of the two is evaluated decides every number
            visible(
                f"{path} holds {quoted(other)} beside {taken!r}, and the weights of {taken!r} are taken: for the "
                f"others name a file that torch.save(torch.load(...)[{quoted(other)}], ...) wrote."
            ),
            file=sys.stderr,
            flush=True,
        )


def refuse_whole_numbers(path: Path, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError for whole numbers in a checkpoint where its model has fractions, as after quantisation."""
    odd = next((name for name, tensor in tensors.items() if _is_whole(tensor) and not _is_whole(own[name])), None)
    if odd is not None:
        raise UserError(
            f"{path}: {quoted(odd)} holds whole numbers ({str(tensors[odd].dtype).partition('.')[2]}) where the model "
            "has fractions: take the checkpoint in float32, float16 or bfloat16."
        )


def _is_whole(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


def _model_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    named = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    whole = len(named) == len(tensors)
    if _wrapped_by(named.keys() - {AVERAGED}) == "module.":
        named.pop(AVERAGED, None)
    while wrapper := _wrapped_by(named):
        named = {name.removeprefix(wrapper): tensor for name, tensor in named.items()}
    if not whole:
        raise UserError(f"{path} holds some tensors with and without '_orig_mod.': save the model's state_dict() anew.")
    return named


def _wrapped_by(names: Collection[str]) -> str:
    """Prefix that a wrapper put before every name; empty for none."""
    return next((each for each in WRAPPERS if names and all(name.startswith(each) for name in names)), "")
