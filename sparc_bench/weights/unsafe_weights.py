"""Errors about checkpoints that need code to be run: the code that they import, and the command that converts them.

Nothing is unpickled here: pickle operations are listed and not executed.
"""

from __future__ import annotations

import io
import pickletools
import shlex
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from sparc_bench.errors import UserError, quoted
from sparc_bench.files.archives import ZIP
from sparc_bench.weights.pickle_walk import Refused, Walk

NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training checkpoints keep the model's state dict, by precedence."""

TORCH_MAGIC = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""First bytes of files from torch.save before torch 1.6."""

HARMLESS = ("torch", "torch._utils", "torch.storage", "torch.serialization", "collections")
"""Modules that every checkpoint imports from; left out of the error sentences."""


MOST_OPERATIONS = 3_000_000
"""Operations of a pickle, at most: enough for 80,000 tensors."""

LARGEST_PICKLE = 64 * 2**20
"""Bytes of the pickle of a torch.save archive, at most: it holds names and shapes alone."""

Operation = tuple[str, Any]
"""Name of a pickle operation, and its argument where that is a string or an integer."""


def torchscript(path: Path) -> UserError:
    """The error for a TorchScript archive."""
    command = _conversion(path, "torch.jit.load(sys.argv[1], map_location='cpu').state_dict()")
    return UserError(
        f"{path} is a TorchScript archive, a program rather than weights: if you trust its source, convert it once and "
        f"name the new file: {command}"
    )


def runs_code(path: Path, name: str = "") -> UserError:
    """The error for a checkpoint that needs unpickling; it names the code that the file imports, `name` among it."""
    read = "torch.load(sys.argv[1], map_location='cpu', weights_only=False)"
    command = _conversion(path, "pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())" if is_pickle(path) else read)
    asked = [each for each in dict.fromkeys(_asked_for(path)) if each.rpartition(".")[0] not in HARMLESS]
    if name and _name(name) not in asked:
        asked.insert(0, _name(name))
    what = f" ({', '.join(asked[:3])}{', ...' if len(asked) > 3 else ''})" if asked else ""
    return UserError(
        f"{path} can only be unpickled, which runs any code in it{what}: if you trust its source, convert it once and "
        f"name the new file: {command}"
    )


def is_pickle(path: Path) -> bool:
    """Whether a file holds one pickle and nothing else."""
    with path.open("rb") as file:
        found = _operations(file)
        return found is not None and (len(found) > MOST_OPERATIONS or not file.read(1))


def is_whole(path: Path) -> bool:
    """Whether all pickles of a torch.save file are complete."""
    return all(each is not None for each in _streams(path))


def refuse_bombs(path: Path) -> None:
    """Raise UserError for a torch.save file whose unpickling would take minutes, or more memory than its size."""
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP)) == ZIP
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
            pickles = [info.file_size for info in archive.infolist() if info.filename.endswith("data.pkl")]
            whole = sum(info.file_size for info in archive.infolist())
        if packed or whole > path.stat().st_size:
            raise UserError(
                f"{path} is a packed archive, which torch.save never writes: pack it anew without compression, or "
                "take the file from its authors anew."
            )
        if max(pickles, default=0) > LARGEST_PICKLE:
            raise _attack(path, f"lists its tensors in over {MOST_OPERATIONS:,} operations")
    walk = Walk(MOST_OPERATIONS)
    try:
        all(walk.pickle(file) for file in _pickles(path))  # up to the first that torch's reader cannot read
    except Refused as refused:
        if not refused.name:
            raise _attack(path, str(refused)) from None
        if is_whole(path):
            raise runs_code(path, refused.name) from None
        raise UserError(
            f"{path} is truncated, damaged or no checkpoint (its pickle breaks off): copy or download it again."
        ) from None


def _attack(path: Path, what: str) -> UserError:
    return UserError(f"{path} {what}, as an attack would have it: save the model's state_dict() as safetensors.")


def _conversion(path: Path, expression: str) -> str:
    """The command that converts a checkpoint to safetensors beside it; `expression` reads the file `sys.argv[1]`."""
    keys = ", ".join(f"'{key}'" for key in NESTED)
    code = (
        "import pathlib, pickle, sys, torch; from safetensors.torch import save_file; "
        f"d = {expression}; "
        f"d = next((d[k] for k in ({keys}) if isinstance(d, dict) and k in d), d); "
        "d = d.state_dict() if hasattr(d, 'state_dict') else d; "
        "save_file({k: torch.as_tensor(v).detach().contiguous().clone() for k, v in d.items() "
        "if hasattr(v, '__array__')}, sys.argv[2])"
    )
    converted = path.with_suffix(".safetensors")
    if converted.exists():
        converted = path.with_suffix(".converted.safetensors")
    return f'python -c "{code}" {shlex.quote(str(path))} {shlex.quote(str(converted))}'


def _streams(path: Path) -> Iterator[list[Operation] | None]:
    """The operations of each pickle of a file; None for a truncated pickle."""
    for file in _pickles(path):
        yield _operations(file)


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    """Each pickle of a file, opened at its start; what is read of one decides where the next begins."""
    with path.open("rb") as file:
        start = file.read(32)
        file.seek(0)
        if start.startswith(ZIP):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if name.endswith("data.pkl"):
                        yield _opened(archive, name)
        elif tarfile.is_tarfile(path):
            with tarfile.open(fileobj=file) as tar:
                member = next((each for each in tar if each.name == "pickle" and each.isreg()), None)
                yield (member and tar.extractfile(member)) or io.BytesIO()
        else:  # pickles of magic number, version and system come before the object's, one of storage names after it
            for _ in range(5 if TORCH_MAGIC in start else 1):
                yield file


def _opened(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A member's bytes, whatever its checksum: torch does not compare it. Empty for an encrypted member."""
    try:
        with archive.open(name) as member:
            member._expected_crc = None  # type: ignore[attr-defined]
            return io.BytesIO(member.read())
    except Exception:
        return io.BytesIO()


def _operations(file: IO[bytes]) -> list[Operation] | None:
    try:
        return [
            (operation.name, argument if isinstance(argument, str | int) else None)  # drops the bytes of large arrays
            for operation, argument, _ in islice(pickletools.genops(file), MOST_OPERATIONS + 1)
        ]
    except Exception:  # no pickle
        return None


def _asked_for(path: Path) -> Iterator[str]:
    """Names that the pickles of a file import, as `module.name`; an odd name is quoted, since it is printed."""
    for operations in _streams(path):
        strings, memo = ["", ""], list[str]()
        for name, argument in operations or ():
            if name in ("GLOBAL", "INST"):
                yield _name(str(argument).replace(" ", "."))
            elif name == "STACK_GLOBAL":
                yield _name(".".join(strings[-2:]))
            elif "UNICODE" in name:
                strings.append(str(argument))
            elif name == "MEMOIZE":
                memo.append(strings[-1])
            elif name in ("BINGET", "LONG_BINGET") and argument < len(memo):
                strings.append(memo[argument])


def _name(found: str) -> str:
    return found if len(found) < 100 and found.replace(".", "").isidentifier() else quoted(found)
