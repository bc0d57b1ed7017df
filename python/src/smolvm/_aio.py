"""What the asynchronous client needs of asyncio. `_threads` has the same names for the synchronous one."""

from __future__ import annotations

import asyncio
import inspect
import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from ._serve import Address

T = TypeVar("T")

# A client belongs to one event loop, in one process.
_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, Address, httpx.AsyncClient]] = weakref.WeakKeyDictionary()

_limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=120)


def http_client(address: Address) -> httpx.AsyncClient:
    """The client of this event loop for a server."""
    loop, pid = asyncio.get_running_loop(), os.getpid()
    there = _clients.get(loop)
    if there is not None and there[0] == pid and there[1] == address:
        return there[2]
    headers = {"Authorization": f"Bearer {address.token}"} if address.token else {}
    if address.socket is not None:
        transport = httpx.AsyncHTTPTransport(uds=address.socket, verify=False, limits=_limits, trust_env=False)
        client = httpx.AsyncClient(transport=transport, headers=headers, trust_env=False)
    else:
        client = httpx.AsyncClient(headers=headers, limits=_limits)
    _clients[loop] = (pid, address, client)
    return client


async def run_blocking(f: Callable[..., T], *args: Any) -> T:
    """Calls what blocks where it blocks nobody."""
    return await asyncio.to_thread(f, *args)


def constructed(make: Callable[[], Any]) -> None:
    """Is called by constructors, which cannot wait: the first call makes the VM."""


async def call(f: Callable[..., Any] | None, *args: Any) -> None:
    """Calls a callback, which may be a coroutine function."""
    if f is not None:
        result = f(*args)
        if inspect.isawaitable(result):
            await result


Lock = asyncio.Lock


async def sleep(seconds: float) -> None:
    """Sleeps."""
    await asyncio.sleep(seconds)


async def gather(calls: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T | BaseException]:
    """Makes several calls, so many at once, and gives what each returned or raised."""
    semaphore = asyncio.Semaphore(limit)

    async def one(f: Callable[[], Awaitable[T]]) -> T:
        async with semaphore:
            return await f()

    return await asyncio.gather(*(one(f) for f in calls), return_exceptions=True)


async def read_chunks(path: str | Path, size: int) -> AsyncIterator[bytes]:
    """Reads a file piece by piece."""
    with await asyncio.to_thread(open, path, "rb") as f:
        while chunk := await asyncio.to_thread(f.read, size):
            yield chunk


async def shielded(f: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Finishes what was begun though the caller is cancelled."""
    task = asyncio.ensure_future(f())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def websocket(address: Address, path: str, *, open_timeout: float = 30) -> Any:
    """Opens a WebSocket."""
    from websockets.asyncio.client import connect, unix_connect

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
        return await unix_connect(address.socket, "ws://smolvm" + path, **options)
    return await connect("ws" + address.url[4:] + path, **options)
