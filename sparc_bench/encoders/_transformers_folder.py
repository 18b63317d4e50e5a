"""Checkpoint folders in transformers' layout: their files, and model, tokenizer and image processor loaded from them.

The folder is local, or comes from a repository of the hub through `sparc_bench.weights.hub`. Weights are read by
`sparc_bench.weights.weights_file` without unpickling; code in a checkpoint runs only where a card asks for it by name.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc_bench.errors import UserError, shortened
from sparc_bench.files.json_text import json_value
from sparc_bench.weights import hub
from sparc_bench.weights.configuration import refuse_absurd
from sparc_bench.weights.weights_file import file_sha256, read_tensors

if TYPE_CHECKING:  # a folder without weights is refused before torch is imported
    from torch import nn

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Names of weights files, in transformers' order of precedence."""

PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Files of an image processor, which has at least one of them."""

VOCABULARIES = (
    *("tokenizer.json", "spiece.model", "vocab.json", "vocab.txt", "sentencepiece.bpe.model", "tokenizer.model"),
)
"""Vocabulary files of a tokenizer, which has at least one of them."""

TOKENIZER = "tokenizer_config.json"
MERGES = "merges.txt"
OPTIONAL = (TOKENIZER, MERGES, "special_tokens_map.json", "added_tokens.json")
"""Tokenizer files that some repositories lack."""

DECIDING = {".json", ".txt", ".model", ".py"}
"""Suffixes of files other than the weights that can change a vector."""

INSTALL = 'pip install "sparc-bench[hf]"'


@dataclass(frozen=True)
class Folder:
    """A checkpoint on this machine.

    Attributes:
        path: the folder.
        weights: its weights file, or the index of several.
        name: OWNER/NAME on the hub, or the folder's own name; the value of `remote_code` that allows its code.
    """

    path: Path
    weights: Path
    name: str

    @property
    def sha256(self) -> str:
        """Hash of the weights (see `file_sha256`)."""
        return file_sha256(self.weights)

    def hashes(self) -> dict[str, str]:
        """File name -> sha256, of every file other than the weights that can change a vector."""
        files = (file for file in sorted(self.path.iterdir()) if file.suffix in DECIDING and file.is_file())
        return {file.name: file_sha256(file) for file in files if not file.name.endswith(".index.json")}

    def json(self, file: str) -> dict[str, Any]:
        """A JSON file of the folder; raises UserError where it is missing or damaged."""
        try:
            found = json_value((self.path / file).read_bytes())
        except FileNotFoundError:
            raise UserError(f"{self.path} has no {file}: name a folder that save_pretrained wrote.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / file} cannot be read ({_first_line(error)}): copy it again.") from None
        if not isinstance(found, dict):
            raise UserError(f"{self.path / file} holds no settings: copy it again.")
        return found


def local_folder(path: Path, sha256: str | None) -> Folder:
    """The checkpoint in a folder, or around a weights file.

    Raises:
        UserError: there are no weights, or their hash differs from `sha256`.
    """
    folder = path if path.is_dir() else path.parent
    file = path
    if path.is_dir():
        found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
        if not found:
            raise UserError(f"{folder} holds none of {', '.join(WEIGHTS)}: name a folder that save_pretrained wrote.")
        file = found[0]
    return Folder(folder, _pinned(file, sha256), folder.resolve().name)


def hub_folder(repo: str, revision: str | None, sha256: str | None, file: str | None = None) -> Folder:
    """The checkpoint of a hub repository: the local copy where it is complete, else downloaded file by file.

    Args:
        repo: OWNER/NAME.
        revision: commit, branch or tag; None for the branch main.
        sha256: pinned hash of the weights (see `file_sha256`), or None.
        file: weights file, if not the first of WEIGHTS.

    Raises:
        UserError: a file is missing and cannot be downloaded, or the hash of the weights differs from `sha256`.
    """
    needed = ((CONFIG,), (file,) if file else WEIGHTS, VOCABULARIES, PROCESSORS, (TOKENIZER,))
    here = {name for names in needed for name in names if hub.find(repo, name, revision)}
    missing = [names[0] for names in needed if not here.intersection(names)]
    there = set(_listing(repo, revision, missing[0])) if missing else here
    weights = next((name for name in needed[1] if name in there), None)
    if weights is None or CONFIG not in there:
        raise UserError(
            f"{repo} holds no checkpoint of transformers ({CONFIG} and one of {', '.join(needed[1])}): check the name; "
            f"a model of open_clip is open_clip:hf-hub:{repo}."
        )
    beside = sorted(there & {*VOCABULARIES, *OPTIONAL, *PROCESSORS}) if missing else ()
    sharded = weights.endswith(".index.json")
    pins = dict.fromkeys((CONFIG, *beside)) | {weights: None if sharded else sha256}
    found = hub.obtain_all(repo, pins, revision)[-1]
    folder = Folder(found.parent, found, repo)
    if sharded:
        listed = folder.json(weights).get("weight_map")
        shards = sorted({str(each) for each in listed.values()}) if isinstance(listed, dict) else []
        hub.obtain_all(repo, dict.fromkeys(shards), revision)
    _pinned(found, sha256)
    return folder


def trusts(folder: Folder, settings: Mapping[str, Any], remote_code: str | None) -> bool:
    """Whether the code that a checkpoint's config.json names may run; False where it names none.

    Args:
        folder: the checkpoint.
        settings: content of its config.json.
        remote_code: the card's option: OWNER/NAME of the code.

    Raises:
        UserError: config.json names code that the card does not, or the card names code that config.json does not.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, code = settings.get("model_type"), settings.get("auto_map")
    if not isinstance(kind, str | None) or not isinstance(code, dict | None):
        raise UserError(f"{folder.path / CONFIG} has a model_type or auto_map of another type: copy it again.")
    refuse_absurd(settings, str(folder.path / CONFIG), folder.weights)
    if kind in CONFIG_MAPPING:
        if remote_code is not None:
            raise UserError(f"{folder.name} is of transformers' own '{kind}' and runs no code: leave remote_code out.")
        return False
    reference = (code or {}).get("AutoModel")
    if reference is None and kind is None:
        raise UserError(
            f"{folder.path / CONFIG} names no architecture of transformers (model_type): a model of open_clip is "
            "open_clip:FILE with its architecture in a card."
        )
    if reference is None:
        raise UserError(f"The installed transformers knows no '{kind}', which {folder.name} is: {INSTALL} --upgrade")
    home = str(reference).partition("--")[0] if "--" in str(reference) else folder.name
    if remote_code != home:
        asked = f", but its card names '{remote_code}'" if remote_code else ", which nothing but its name allows"
        raise UserError(
            f"{folder.name} runs code of its own from {home}{asked}: read that code, then write remote_code = "
            f'"{home}" into the options of its card.'
        )
    return True


def refuse_missing_parts(folder: Folder) -> None:
    """Raise UserError where the folder lacks its image processor, as after the `save_pretrained` of a model alone."""
    if any((folder.path / name).is_file() for name in PROCESSORS):
        return
    lacking = {"AutoImageProcessor": f"image processor ({PROCESSORS[0]})"}
    if not any((folder.path / name).is_file() for name in VOCABULARIES):
        lacking["AutoTokenizer"] = f"tokenizer ({VOCABULARIES[0]})"
    lines = [f"transformers.{kind}.from_pretrained(NAME).save_pretrained({str(folder.path)!r})" for kind in lacking]
    raise UserError(
        f"{folder.path} lacks its {' and its '.join(lacking.values())}, which a model's own save_pretrained does not "
        f"write: with the checkpoint that it was trained from as NAME, run {' and '.join(lines)}."
    )


def configuration(folder: Folder, trusted: bool) -> Any:  # noqa: ANN401 - a class of transformers
    """Configuration of the model."""
    from transformers import AutoConfig

    with _loading(folder, CONFIG):
        return AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=trusted)


def image_processor(folder: Folder, trusted: bool) -> Any:  # noqa: ANN401 - a class of transformers
    """Image processor of the checkpoint, as transformers loads it."""
    from transformers import AutoImageProcessor

    with _loading(folder, PROCESSORS[0]):
        return AutoImageProcessor.from_pretrained(folder.path, local_files_only=True, trust_remote_code=trusted)


def tokenizer(folder: Folder, trusted: bool) -> Any:  # noqa: ANN401 - a class of transformers
    """Tokenizer of the checkpoint, as transformers loads it; raises UserError where its vocabulary is missing."""
    from transformers import AutoTokenizer

    here = {name for name in (*VOCABULARIES, MERGES) if (folder.path / name).is_file()}
    if not here - {MERGES} or here == {"vocab.json"}:
        lacking = MERGES if "vocab.json" in here else VOCABULARIES[0]
        raise UserError(f"{folder.path} has no vocabulary for its tokenizer ({lacking} is missing): copy it there.")
    with _loading(folder, "its tokenizer's files"):
        return AutoTokenizer.from_pretrained(folder.path, local_files_only=True, trust_remote_code=trusted)


def model(folder: Folder, config: Any, trusted: bool) -> nn.Module:  # noqa: ANN401
    """The model in float32 with the folder's weights; every tensor of both must match.

    transformers' own loading handles old names and tied tensors, on tensors that `read_tensors` read safely.

    Raises:
        UserError: a tensor is missing, unknown or of another shape, or `read_tensors` refuses the file.
    """
    import torch
    from transformers import AutoModel

    tensors = read_tensors(folder.weights)
    with _loading(folder, "its architecture"):
        with torch.device("cpu" if trusted else "meta"):  # for its class alone, without initial weights
            cls = type(AutoModel.from_config(config, trust_remote_code=trusted))
        loaded, report = cls.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            torch_dtype=torch.float32,
            ignore_mismatched_sizes=True,  # reported below
            output_loading_info=True,
        )
    for name, there, wanted in sorted(report["mismatched_keys"]):
        raise UserError(
            f"{folder.weights}: '{name}' has the shape {tuple(there)}, but {CONFIG} asks for {tuple(wanted)}: take "
            "both from the same checkpoint."
        )
    for problem, names in (("lacks", report["missing_keys"]), ("has an unknown", report["unexpected_keys"])):
        odd = sorted(name for name in names if not name.endswith("position_ids"))  # buffers of older versions
        if odd:
            raise UserError(
                f"{folder.weights} {problem} '{odd[0]}' ({len(odd)} such) for the {cls.__name__} of {CONFIG}: take "
                "both from the same checkpoint."
            )
    in_float32: nn.Module = loaded.float().eval()
    return in_float32


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Context without transformers' progress bars, logging and warnings."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.CRITICAL)
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


@contextlib.contextmanager
def _loading(folder: Folder, part: str) -> Iterator[None]:
    """Context in which every exception becomes a UserError about `part` of the folder."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{folder.name} needs a library that is missing ({_first_line(error)}): {INSTALL}") from None
    except Exception as error:  # its classes raise exceptions of any type
        raise UserError(
            f"transformers cannot load {folder.path} by {part} ({type(error).__name__}: {_first_line(error)}): copy or "
            "download its files again."
        ) from error


def _listing(repo: str, revision: str | None, missing: str) -> list[str]:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:  # the request for a file raises the sentence about it
        hub.obtain(repo, missing, revision, None)
    try:
        siblings = HfApi().model_info(repo, revision=revision, timeout=hub.TIMEOUT).siblings
        return [sibling.rfilename for sibling in siblings or ()]
    except HfHubHTTPError:  # the hub refused: the request for a file raises the sentence about it
        hub.obtain(repo, missing, revision, None)
        raise
    except Exception as error:  # the network libraries under the hub's differ by version
        flag = f" --revision {revision}" if revision else ""
        raise UserError(
            f"{repo} is not whole on this machine ({missing} is missing) and the hub cannot be reached "
            f"({_first_line(error)}): run hf download {repo}{flag} on a machine with network and copy its cache into "
            f"{constants.HF_HUB_CACHE}, or name a folder with its files."
        ) from None


def _pinned(file: Path, sha256: str | None) -> Path:
    if sha256 is not None and (found := file_sha256(file)) != sha256:
        raise UserError(
            f"{file} has the sha256 {found[:12]}..., but its card says {sha256[:12]}...: restore the file, or mend the "
            "card."
        )
    return file


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shortened(lines[0], 160) if lines else type(error).__name__
