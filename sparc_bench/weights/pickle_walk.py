"""What the pickle of a checkpoint would do to torch's reader, found without doing it: a walk along its operations.

The reader of `weights_only=True` runs no code, but builds and hashes what it is told: a tuple of tuples whose items
repeat takes for ever, one that is nested deep overflows the stack, and `bytearray(3_000_000_000)` takes that memory.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

DEEPEST_TUPLE = 16
"""Tuples within each other, at most; those of checkpoints have three levels."""

CALLED = frozenset({"OrderedDict", "Counter", "Size", "device", "set", "complex", "Parameter"})
"""What checkpoints call by a public name; the functions that build tensors have private ones."""

MODULES = (
    *("torch", "torch._utils", "torch._tensor", "torch.storage", "torch.serialization", "torch.nn.parameter"),
    *("torch.cuda", "torch.sparse", "torch.cuda.sparse", "collections"),
)
"""Modules of which checkpoints name things, by the names of Python 3."""

SIMPLE = frozenset({"builtins.set", "builtins.complex", "_codecs.encode"})
"""Other names that training checkpoints may hold."""

_LETTERS = 64
"""So many letters weigh as much as one thing in a list."""

_CONSTANTS = {
    *("NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"),
    *("BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINSTRING", "GLOBAL"),
}
"""Operations of torch's reader that put a new thing on the stack."""

_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Refused(Exception):
    """What makes a pickle harmful, in the words of a sentence; `name` where that is something it calls."""

    def __init__(self, what: str, name: str = "") -> None:
        super().__init__(what)
        self.name = name


@dataclass(eq=False)
class _Thing:
    """What lies on the stack: the work to walk all of it, the tuples in it, and its text, name or items."""

    weight: int = 1
    depth: int = 0
    text: str = ""
    called: str = ""
    items: tuple[_Thing, ...] = ()


class Walk:
    """A walk along the pickles of one file.

    Args:
        most: operations, and things hashed or given to a call, at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._operations = self._work = 0
        self._stack: list[_Thing] = []
        self._outer: list[list[_Thing]] = []
        self._memo: dict[int, _Thing] = {}

    def pickle(self, file: IO[bytes]) -> bool:
        """Walk along one pickle; False where torch's reader would raise before its end.

        Raises:
            Refused: the pickle would take more time, memory or stack than any checkpoint.
        """
        self._stack, self._outer, self._memo = [], [], {}
        operations = pickletools.genops(file)
        while True:
            try:
                operation, argument, _ = next(operations)
                self._step(operation.name, argument)
            except Refused:
                raise
            except Exception:  # no pickle, or an empty stack: the same end for torch's reader
                return False
            if operation.name == "STOP":
                return True

    def _step(self, name: str, argument: object) -> None:
        self._operations += 1
        if self._operations > self._most:
            raise Refused(f"lists its tensors in over {self._most:,} operations")
        if name in _CONSTANTS:
            self._stack.append(_constant(name, argument))
        elif name in _TUPLES:
            self._tuple([self._stack.pop() for _ in range(_TUPLES[name])][::-1])
        elif name == "TUPLE":
            self._tuple(self._to_mark())
        elif name == "MARK":
            self._outer.append(self._stack)
            self._stack = []
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[int(str(argument))])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[int(str(argument))] = self._stack[-1]
        elif name not in ("PROTO", "STOP"):
            _OTHERS[name](self)

    def _to_mark(self) -> list[_Thing]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _tuple(self, items: list[_Thing]) -> None:
        depth = 1 + max((item.depth for item in items), default=0)
        if depth > DEEPEST_TUPLE:
            raise Refused(f"nests tuples more than {DEEPEST_TUPLE} deep")
        self._stack.append(_Thing(1 + sum(item.weight for item in items), depth, items=tuple(items)))

    def _takes(self, thing: _Thing) -> None:
        self._work += thing.weight
        if self._work > self._most:
            raise Refused(f"repeats its keys or arguments over {self._most:,} times")

    def _fill(self, items: list[_Thing]) -> None:
        self._stack[-1].weight += sum(item.weight for item in items)

    def _keys(self, items: list[_Thing]) -> None:
        for key in items[::2]:
            self._takes(key)
        self._fill(items)

    def _call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        module, _, name = function.called.rpartition(".")
        encodes = function.called == "_codecs.encode"
        if encodes and [item.text for item in arguments.items[1:]] not in (["latin1"], ["latin-1"]):
            raise Refused("encodes text as no checkpoint does", function.called)
        if not encodes and (not module or (name not in CALLED and not name.startswith("_"))):
            raise Refused(f"calls {function.called or 'what is no function'}", function.called)
        self._takes(arguments)
        self._stack.append(_Thing(arguments.weight, 1))

    def _build(self) -> None:
        self._takes(self._stack.pop())

    def _append(self) -> None:
        self._fill([self._stack.pop()])

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._keys([key, value])

    def _persistent(self) -> None:
        self._stack.pop()
        self._stack.append(_Thing())


_OTHERS: dict[str, Callable[[Walk], None]] = {
    "APPEND": Walk._append,
    "APPENDS": lambda walk: walk._fill(walk._to_mark()),
    "SETITEM": Walk._set_item,
    "SETITEMS": lambda walk: walk._keys(walk._to_mark()),
    "REDUCE": Walk._call,
    "NEWOBJ": Walk._call,
    "BUILD": Walk._build,
    "BINPERSID": Walk._persistent,
}
"""All other operations of torch's reader; it refuses those that are not here."""


def _constant(name: str, argument: object) -> _Thing:
    if name == "GLOBAL":
        module, _, called = str(argument).partition(" ")
        written = f"{module}.{called}"
        module = IMPORT_MAPPING.get(module, module)
        if module not in MODULES and f"{module}.{called}" not in SIMPLE:
            raise Refused("imports other code", written)
        return _Thing(called=f"{module}.{called}")
    if isinstance(argument, str):
        return _Thing(1 + len(argument) // _LETTERS, text=argument)
    return _Thing()
