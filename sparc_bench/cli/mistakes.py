"""Sentences about mistakes in the arguments, and about a file system that refuses."""

from __future__ import annotations

import errno
from typing import Any, cast

import typer

from sparc_bench.errors import nearest

UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""The base of every mistake in the arguments; typer exports only its subclasses."""

_REMEDIES = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some of your quota and run the command again",
    errno.EACCES: "choose one that you may use",
    errno.EPERM: "choose one that you may use",
    errno.EROFS: "choose a folder that can be written to",
    errno.ENOTDIR: "choose a folder, not a file",
    errno.EEXIST: "choose a folder, not a file",
    errno.EISDIR: "choose a file, not a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""Error number of the file system -> remedy; any other OSError is a fault of the program."""


def usage(error: Exception) -> str:
    """One sentence about a mistake in the arguments, ending in the nearest name or in where to look."""
    context: Any = getattr(error, "ctx", None)
    option: str | None = getattr(error, "option_name", None)
    if context is not None and option is not None and hasattr(error, "possibilities"):
        known = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
        command = context.command_path
        return f"{command} has no option '{option}': {nearest(option, [*known, '--help'], f'{command} --help')}"
    message = " ".join(cast("Any", error).format_message().split()).rstrip(".")
    return (
        message
        if message.endswith("?")
        else f"{message}: see {context.command_path if context else 'sparc-bench'} --help."
    )


def disk(error: OSError) -> str | None:
    """One sentence about a file system that refuses, or None where the error is of another kind."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    return f"{error.filename or 'A file'} cannot be used ({error.strerror}): {remedy}."
