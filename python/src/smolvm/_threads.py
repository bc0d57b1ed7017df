"""What the synchronous client needs of threads. `_aio` has the same names for the asynchronous one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from ._serve import Address

T = TypeVar("T")

_limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=120)

_lock = threading.Lock()
_client: tuple[Address, httpx.Client] | None = None


def http_client(address: Address) -> httpx.Client:
    """The client of this process for a server. It is safe for threads."""
    global _client
    there = _client
    if (there is not None and there[0] is address) or (there is not None and there[0] == address):
        return there[1]
    with _lock:
        if _client is not None and _client[0] == address:
            return _client[1]
        headers = {"Authorization": f"Bearer {address.token}"} if address.token else {}
        if address.socket is not None:
            transport = httpx.HTTPTransport(uds=address.socket, verify=False, limits=_limits, trust_env=False)
            client = httpx.Client(transport=transport, headers=headers, trust_env=False)
        else:
            client = httpx.Client(headers=headers, limits=_limits)
        _client = (address, client)
        return client


def _forked() -> None:
    global _client, _lock
    # The connections are the parent's. They are forgotten, and their descriptors stay until this process ends: closing them
    # properly would say things on them.
    if _client is not None:
        _kept.append(_client)
    _client = None
    _lock = threading.Lock()


_kept: list[Any] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def run_blocking(f: Callable[..., T], *args: Any) -> T:
    """Calls what blocks."""
    return f(*args)


def constructed(make: Callable[[], Any]) -> None:
    """Is called by constructors: the VM is made at once."""
    make()


def call(f: Callable[..., Any] | None, *args: Any) -> None:
    """Calls a callback."""
    if f is not None:
        f(*args)


Lock = threading.Lock


def sleep(seconds: float) -> None:
    """Sleeps."""
    time.sleep(seconds)


def gather(calls: Sequence[Callable[[], T]], limit: int) -> list[T | BaseException]:
    """Makes several calls, so many at once, and gives what each returned or raised."""

    def one(f: Callable[[], T]) -> T | BaseException:
        try:
            return f()
        except BaseException as e:
            return e

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=limit, thread_name_prefix="smolvm") as pool:
        return list(pool.map(one, calls))


def read_chunks(path: str | Path, size: int) -> Iterator[bytes]:
    """Reads a file piece by piece."""
    with open(path, "rb") as f:
        while chunk := f.read(size):
            yield chunk


def shielded(f: Callable[[], T]) -> T:
    """Nothing here can be cancelled."""
    return f()


def websocket(address: Address, path: str, *, open_timeout: float = 30) -> Any:
    """Opens a WebSocket."""
    from websockets.sync.client import connect, unix_connect

    headers = {"Authorization": f"Bearer {address.token}"} if address.token else {}
    options: dict[str, Any] = {
        "subprotocols": ["smolvm.v1"],
        "additional_headers": headers,
        "max_size": 16 << 20,
        "compression": None,
        "open_timeout": open_timeout,
        "user_agent_header": None,
    }
    if address.socket is not None:
        return unix_connect(address.socket, "ws://smolvm" + path, **options).__enter__()
    return connect("ws" + address.url[4:] + path, **options).__enter__()
