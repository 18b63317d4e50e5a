"""Files of the Hugging Face hub: from this machine's cache first; every download is announced before it starts."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparc_bench.errors import UserError, reason
from sparc_bench.weights.weights_file import file_sha256

TIMEOUT = 5.0
"""Longest wait in seconds for the hub's answer on the size of a file."""


def find(repo: str, file: str, revision: str | None) -> Path | None:
    """The path of a hub file in this machine's cache (HF_HUB_CACHE, HF_HOME), or None; never uses the network.

    Args:
        repo: OWNER/NAME.
        file: path in the repository.
        revision: commit, branch or tag; None for the branch main as last downloaded.

    Raises:
        UserError: `repo` is not the name of a repository, or `file` leads out of it.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise UserError(f"'{file}' is no path in {repo}: write it relative to the repository.")
    try:
        found = try_to_load_from_cache(repo, file, revision=revision)
    except HFValidationError:
        raise UserError(f"'{repo}' is no repository of the hub: write OWNER/NAME.") from None
    return Path(found) if isinstance(found, str) else None


def obtain(repo: str, file: str, revision: str | None, sha256: str | None) -> Path:
    """The path of a hub file in this machine's cache; a missing file is downloaded, after a line with source and size.

    Args:
        repo: OWNER/NAME.
        file: path in the repository.
        revision: commit, branch or tag; None for the branch main.
        sha256: expected sha256 of the file; None where none is pinned.

    Raises:
        UserError: the file is not cached and cannot be downloaded, or has another sha256.
    """
    return obtain_all(repo, {file: sha256}, revision)[0]


def obtain_all(repo: str, pins: Mapping[str, str | None], revision: str | None) -> list[Path]:
    """The paths of several hub files as by `obtain`; `pins`: file -> sha256. All downloads are announced first."""
    missing = {file: _metadata(repo, file, revision) for file in pins if find(repo, file, revision) is None}
    for file, metadata in missing.items():
        _refuse_other_file(repo, file, metadata, pins[file])
    if missing:
        _announce(repo, revision, missing)
    paths = {file: find(repo, file, revision) or _download(repo, file, revision) for file in pins}
    return [_checked(repo, file, path, pins[file]) for file, path in paths.items()]


def _checked(repo: str, file: str, path: Path, sha256: str | None) -> Path:
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise UserError(
            f"{path} has the sha256 {found}, but {sha256[:12]}... was pinned for {file} of {repo}: delete the file to "
            "fetch it again, or mend the card."
        )
    return path


def _metadata(repo: str, file: str, revision: str | None) -> Any:  # noqa: ANN401 - its class has moved between versions
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

    page = _page(repo)
    where = f"{file} of {page}" + (f" at {revision}" if revision else "")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{where} is not on this machine and HF_HUB_OFFLINE is set: {_by_hand(repo, file, revision)}")
    try:
        return get_hf_file_metadata(hf_hub_url(repo, file, revision=revision), timeout=TIMEOUT)
    except errors.GatedRepoError:
        raise UserError(f"{where} asks for consent: accept the terms on that page and run hf auth login.") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"There is no public {page}: check the name, or run hf auth login if it is yours.") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{page} has no revision '{revision}': choose one of {page}/commits/main") from None
    except errors.EntryNotFoundError:
        raise UserError(f"{page} has no file '{file}': choose one of {page}/tree/{revision or 'main'}") from None
    except Exception as error:  # the network libraries under the hub's differ by version
        raise UserError(
            f"{where} is not on this machine and the hub cannot be reached ({reason(error)}): "
            f"{_by_hand(repo, file, revision)}"
        ) from None


def _refuse_other_file(repo: str, file: str, metadata: Any, sha256: str | None) -> None:  # noqa: ANN401
    """Raise UserError where the hub's etag (the sha256 of a large file) differs from the pinned sha256."""
    there = metadata.etag or ""
    if sha256 is not None and re.fullmatch(r"[0-9a-f]{64}", there) and there != sha256:
        raise UserError(
            f"{file} of {_page(repo)} has the sha256 {there}, but {sha256[:12]}... was pinned and nothing was "
            "downloaded: mend the card's sha256 or revision."
        )


def _announce(repo: str, revision: str | None, files: Mapping[str, Any]) -> None:
    from huggingface_hub import constants

    listed = ", ".join(f"{file} ({_size(metadata.size)})" for file, metadata in files.items())
    total = f", {_size(sum(each.size or 0 for each in files.values()))} in all," if len(files) > 1 else ""
    commit = next(iter(files.values())).commit_hash or revision or "main"
    print(  # noqa: T201 - for the user, before anything is fetched
        f"Downloading {listed}{total} of {_page(repo)} at {commit} into {constants.HF_HUB_CACHE}.",
        file=sys.stderr,
        flush=True,
    )


def _download(repo: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except Exception as error:  # the network libraries under the hub's differ by version
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise UserError(
            f"The download of {file} of {_page(repo)} broke off ({reason(error)}): run the same command again."
        ) from None


def _by_hand(repo: str, file: str, revision: str | None) -> str:
    from huggingface_hub import constants

    flag = f" --revision {revision}" if revision else ""
    return (
        f"run hf download {repo} {file}{flag} on a machine with network and copy its cache into "
        f"{constants.HF_HUB_CACHE}, or name a file of this machine."
    )


def _page(repo: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"


def _size(bytes_: int | None) -> str:
    """A size in decimal units, as on the hub's pages.

    >>> [_size(605_157_884), _size(1_712_000_000), _size(3519)]
    ['605.2 MB', '1.7 GB', '3.5 kB']
    """
    if bytes_ is None:
        return "of unknown size"
    unit, name = (1e9, "GB") if bytes_ >= 1e9 else (1e6, "MB") if bytes_ >= 1e6 else (1e3, "kB")
    return f"{bytes_ / unit:.1f} {name}"
