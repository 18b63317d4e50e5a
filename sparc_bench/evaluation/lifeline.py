"""Connections between the processes of one evaluation: they carry small values, and tell that a process has ended.

Every process of rank k > 0 holds one TCP connection to rank 0, on which a thread listens. A process that leaves says so
first (`Farewell`); a connection that ends without a farewell is that of a process that died, and then all end: rank 0's
threads tell the other ranks. Nothing here has a time limit, so that rank 0 may score alone for hours, and a busy or
sleeping process need not answer, so that there is no false alarm; the system's own probes (`_hold`) find a machine that
has vanished. Values do not travel by a collective of torch.distributed: its wait ends in an error of its own where a
process dies, and hears no signal.
"""

from __future__ import annotations

import contextlib
import hmac
import multiprocessing
import os
import pickle
import queue
import secrets
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol

from sparc_bench.errors import StoppedError, UserError

JOIN_SECONDS = 600.0
"""So long may the processes take to find each other; they import torch and what else they need at their own pace."""

EXIT_SECONDS = 5.0
"""So long is waited for a process that said farewell with an error to end, so that what it says comes first."""

STORE_SECONDS = 2.0
"""So long may torchrun's store take to say who speaks; it vanishes with its machine."""

_PROBES = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
"""A silent machine is given up after 10 s and 3 probes 5 s apart; what was sent and is not confirmed, after 25 s."""

_TOKEN_BYTES = 32
_RANK_BYTES = 4

_open: weakref.WeakSet[Connection] = weakref.WeakSet()
"""Connections of this process; a forked child (a worker that decodes) must not hold them open when its parent dies."""


class Store(Protocol):
    """What is used of torch.distributed's store."""

    def set(self, key: str, value: str, /) -> None:
        """Keep a value."""

    def get(self, key: str, /) -> bytes:
        """The value, once it is there."""

    def add(self, key: str, amount: int, /) -> int:
        """Add to a counter, and return its sum."""


@dataclass(frozen=True)
class Farewell:
    """Last message of a process.

    Attributes:
        code: exit code with which the others end too; 0 where they go on.
        sentence: what one of the others says then; empty where the process that left says it.
    """

    code: int = 0
    sentence: str = ""


def death(rank: int, world: int) -> Farewell:
    """Farewell on behalf of a process that said none."""
    return Farewell(
        1,
        f"Process {rank} of {world} (counted from 0) died (its own messages, if any, stand above): start the same "
        "command again, what is finished is kept.",
    )


class Lifeline:
    """This process's connections: to all others on rank 0, to rank 0 on the others.

    Attributes:
        turn: number of works done together so far, which every rank counts.
        troubled: the last turn in which another rank's work failed; -1 before there is one.
        first: whether this process is the first of all to ask, and so the one that says why they end.
    """

    def __init__(self, rank: int, world: int, peers: dict[int, Connection], first: Callable[[], bool]) -> None:
        self.turn, self.troubled = 0, -1
        self.first = first
        self._rank, self._world, self._peers = rank, world, peers
        self._values: dict[int, queue.SimpleQueue[Any]] = {peer: queue.SimpleQueue() for peer in peers}
        self._sending = {peer: threading.Lock() for peer in peers}
        self._ending = threading.Lock()
        self._left = False
        self._other_ended = threading.Event()
        for peer, connection in peers.items():
            _open.add(connection)
            threading.Thread(target=self._listen, args=(peer, connection), daemon=True).start()

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 - whatever pickle takes
        """All ranks' values in rank order, on every rank; a call waits for the same call of all others."""
        if self._rank > 0:
            self._send(0, "value", value)
            everyone: list[Any] = self._value_of(0)
            return everyone
        everyone = [value, *map(self._value_of, range(1, self._world))]
        for peer in self._peers:
            self._send(peer, "value", everyone)
        return everyone

    def _value_of(self, peer: int) -> Any:  # noqa: ANN401 - whatever pickle takes
        value = self._values[peer].get()
        assert not isinstance(value, Farewell), f"process {peer} left before this call of gather"
        return value

    def warn(self) -> None:
        """Set `troubled` on all other ranks to this turn, before the next value that they get from this one."""
        for peer in self._peers:
            self._send(peer, "trouble", self.turn)

    def leave(self, farewell: Farewell) -> None:
        """Say farewell to the others: from now on, nothing that happens to them ends this process."""
        with self._ending:
            self._left = True
            for peer in self._peers:
                self._send(peer, "farewell", farewell)

    def outlive(self) -> None:
        """Wait until another process has ended: the one that says why they all end, which torchrun would cut short."""
        with contextlib.suppress(StoppedError):  # torchrun stops all once one has ended
            self._other_ended.wait(EXIT_SECONDS)

    def _send(self, peer: int, kind: str, content: Any) -> None:  # noqa: ANN401 - whatever pickle takes
        message = pickle.dumps((kind, content))
        with self._sending[peer], contextlib.suppress(OSError):  # of a process that is gone, its listener tells
            self._peers[peer].send_bytes(message)

    def _listen(self, peer: int, connection: Connection) -> None:
        farewell = death(peer, self._world)
        for kind, content in _messages(connection):
            if kind == "value":
                self._values[peer].put(content)
            elif kind == "trouble":
                self.troubled = content  # a number, for the others may be a turn ahead
                for other in self._peers.keys() - {peer}:
                    self._send(other, kind, content)
            else:
                farewell = content
                break
        if not farewell.code:
            self._values[peer].put(farewell)
            return
        with contextlib.suppress(OSError):
            connection.poll(EXIT_SECONDS)  # until it has ended; at once where it died
        self._other_ended.set()
        self._end(farewell)

    def _end(self, farewell: Farewell) -> None:
        """End this process as another one ended, and the others with it; nothing where this one has left."""
        with self._ending:
            if self._left:
                return
            if farewell.sentence and self.first():
                _say(farewell.sentence)
            for peer in self._peers:
                self._send(peer, "farewell", Farewell(farewell.code))
            _exit(farewell.code)


def connect(rank: int, world: int, address: str, store: Store, key: str) -> Lifeline:
    """The lifeline of this process, once all have theirs.

    Args:
        rank: of this process.
        world: number of processes.
        address: host name of rank 0's machine.
        store: of torchrun.
        key: prefix of what is kept there, of this evaluation alone.

    Raises:
        UserError: a process did not come within `JOIN_SECONDS`.
    """

    def first() -> bool:
        return _first(store, f"{key}/said", rank)

    if rank > 0:
        port, token = store.get(f"{key}/door").decode().split()
        own = socket.create_connection((address, int(port)), timeout=JOIN_SECONDS)
        own.sendall(bytes.fromhex(token) + rank.to_bytes(_RANK_BYTES, "big"))
        return Lifeline(rank, world, {0: _hold(own)}, first)
    token = secrets.token_hex(_TOKEN_BYTES)
    name = address if address in ("localhost", "127.0.0.1") else ""  # every network, where others may come
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((name, 0), family=family, backlog=world) as door:
        store.set(f"{key}/door", f"{door.getsockname()[1]} {token}")
        return Lifeline(rank, world, _accepted(door, world, bytes.fromhex(token)), first)


def _accepted(door: socket.socket, world: int, token: bytes) -> dict[int, Connection]:
    """One connection to each rank above 0; strangers, who do not know the token, are sent away."""
    peers: dict[int, Connection] = {}
    until = time.monotonic() + JOIN_SECONDS
    while len(peers) < world - 1:
        door.settimeout(max(0.01, until - time.monotonic()))
        try:
            caller, _ = door.accept()
        except TimeoutError:
            missing = ", ".join(str(rank) for rank in range(1, world) if rank not in peers)
            raise UserError(
                f"Process {missing} of {world} did not come within {JOIN_SECONDS:.0f} s: read what it says, and start "
                "the same command again."
            ) from None
        caller.settimeout(10)
        try:
            said = caller.recv(_TOKEN_BYTES + _RANK_BYTES)
        except OSError:
            said = b""
        if hmac.compare_digest(said[:_TOKEN_BYTES], token) and len(said) == _TOKEN_BYTES + _RANK_BYTES:
            peers[int.from_bytes(said[_TOKEN_BYTES:], "big")] = _hold(caller)
        else:
            caller.close()
    return peers


def _hold(held: socket.socket) -> Connection:
    """A connection that notices by itself when the other machine has vanished."""
    held.settimeout(None)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in _PROBES.items():
        if hasattr(socket, name):  # systems have different ones
            held.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Connection(held.detach())


def _messages(connection: Connection) -> Iterator[tuple[str, Any]]:
    """Messages until the connection ends."""
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        yield pickle.loads(message)


def _first(store: Store, key: str, rank: int) -> bool:
    """Whether this process is the first to ask; where the store is gone, whether it is the first of its machine."""
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            answers.put(store.add(key, 1))

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=STORE_SECONDS) == 1
    except queue.Empty:
        return rank < 2 or os.environ.get("LOCAL_RANK") == "0"


def _say(sentence: str) -> None:
    """Write a sentence to standard error, whatever the main thread does with it; progress bars hide the cursor."""
    start = "\x1b[?25h\n" if sys.stderr.isatty() else ""
    os.write(2, f"{start}{sentence}\n".encode())


def _exit(code: int) -> NoReturn:
    """End the process from any thread, and the processes that decode for it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def _close_in_child() -> None:
    for connection in list(_open):
        connection.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
