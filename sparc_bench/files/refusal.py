"""Sentences about a file system that refuses, ending in the remedy."""

from __future__ import annotations

import errno

_REMEDIES = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some of your quota and run the command again",
    errno.EFBIG: "choose a file system, or a limit (ulimit -f), that takes files of this size",
    errno.EACCES: "choose one that you may use",
    errno.EPERM: "choose one that you may use",
    errno.EROFS: "choose a folder that can be written to",
    errno.ENOTDIR: "choose a folder, not a file",
    errno.EEXIST: "choose a folder, not a file",
    errno.EISDIR: "choose a file, not a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""Error number of the file system -> remedy."""


def remedy(error: OSError) -> str | None:
    """Remedy for an error of the file system; None for an error of another kind."""
    return _REMEDIES.get(error.errno or 0)


def not_written(path: object, error: OSError) -> str:
    """One sentence about a file that cannot be written, whatever the reason."""
    return f"{path} cannot be written ({error.strerror or error}): {remedy(error) or 'choose another folder'}."
