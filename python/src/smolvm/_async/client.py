"""Requests to the server, and failures as exceptions."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from .. import _aio, _serve
from .._wire import JSON_HEADERS, Events, dumps
from ..exceptions import (
    AlreadyExistsError,
    CommandExecutionUnavailableError,
    HostError,
    InternalError,
    NetworkError,
    OperationTimeoutError,
    SmolVMError,
    VMNotFoundError,
    from_problem,
)

QUIET = 60.0  # the server beats every 15 s on what takes long
CHUNK = 1 << 20

_quick = httpx.Timeout(60.0, connect=10.0, pool=None)


class Refused(Exception):
    """An answer that is a failure: `problem` is what the server says of it."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail"))
        self.problem = problem

    @property
    def code(self) -> str:
        """The class of the failure."""
        return str(self.problem.get("code") or "internal")


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """Reads the failure that an answer is."""
    try:
        problem = response.json()
        if isinstance(problem, dict) and "code" in problem:
            return problem
    except ValueError:
        pass
    code = {401: "denied", 403: "denied", 404: "not_found", 413: "exhausted", 429: "exhausted", 503: "unavailable"}
    what = f"{response.request.method} {response.request.url.path}"
    detail = f"{what}: the server said {response.status_code} {response.text[:200]}".strip()
    return {"code": code.get(response.status_code, "internal"), "status": response.status_code, "detail": detail}


class AsyncConnection:
    """The way to the server, whichever it is at the moment."""

    async def address(self) -> _serve.Address:
        """Where the server is. It is started when it is this process's own."""
        there = _serve.shared() or _serve.running()
        return there if there is not None else await _aio.run_blocking(_serve.address)

    async def send(
        self,
        method: str,
        path: str,
        *,
        content: Any = None,
        headers: dict[str, str] | None = None,
        timeout: httpx.Timeout = _quick,
        stream: bool = False,
    ) -> httpx.Response:
        """Sends a request. A server that is not there is looked for, or started, again; only what changes nothing is sent twice."""
        for attempt in range(20):
            address = await self.address()
            client = _aio.http_client(address)
            request = client.build_request(method, address.url + path, content=content, headers=headers, timeout=timeout)
            try:
                return await client.send(request, stream=stream)
            except (httpx.ConnectError, httpx.ConnectTimeout) as e:
                if not address.generation or attempt == 19:
                    raise HostError(
                        f"no server answers at {address.socket or address.url}: {e}",
                        remedy="smolvm serve, or unset SMOLVM_HOST",
                    ) from e
                await _aio.sleep(0.05)  # until it is known that the child has gone
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if method != "GET" or not address.generation or attempt > 2:
                    raise  # it may have been done
                await _aio.sleep(0.05)
        raise AssertionError

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout: httpx.Timeout = _quick,
        content: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Makes a request and gives its answer's JSON, or None where there is none."""
        if body is not None:
            content, headers = dumps(body), JSON_HEADERS
        try:
            response = await self.send(method, path, content=content, headers=headers, timeout=timeout)
        except httpx.HTTPError as e:
            raise lost(e) from e
        if response.status_code >= 400:
            raise Refused(problem_of(response))
        return json.loads(response.content) if response.content else None

    @contextlib.asynccontextmanager
    async def streaming(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        accept: str = "text/event-stream",
        timeout: httpx.Timeout | None = None,
        content: Any = None,
    ) -> AsyncIterator[httpx.Response]:
        """Makes a request whose answer is read while it comes. Leaving the context ends it."""
        headers = {"Accept": accept}
        if body is not None:
            content = dumps(body)
            headers |= JSON_HEADERS
        try:
            response = await self.send(
                method,
                path,
                content=content,
                headers=headers,
                timeout=timeout or httpx.Timeout(QUIET, connect=10.0, pool=None),
                stream=True,
            )
        except httpx.HTTPError as e:
            raise lost(e) from e
        try:
            if response.status_code >= 400:
                await response.aread()
                raise Refused(problem_of(response))
            yield response
        except httpx.HTTPError as e:
            raise lost(e) from e
        finally:
            await response.aclose()

    async def events(
        self, method: str, path: str, body: Any = None, *, timeout: httpx.Timeout | None = None
    ) -> AsyncIterator[tuple[str, Any]]:
        """Gives the events of an answer; the event `error` is raised."""
        async with self.streaming(method, path, body, timeout=timeout) as response:
            parser = Events()
            async for line in response.aiter_lines():
                event = parser.feed(line)
                if event is None:
                    continue
                if event[0] == "error":
                    raise Refused(event[1])
                yield event

    async def long(
        self, method: str, path: str, body: Any = None, *, on_progress: Callable[..., Any] | None = None, limit: float | None = None
    ) -> Any:
        """Makes a request that may take minutes, and gives its result. `limit` bounds the wait for it."""
        end = time.monotonic() + limit if limit is not None else None
        read = min(QUIET, limit) if limit is not None else QUIET
        events = self.events(method, path, {} if body is None else body, timeout=httpx.Timeout(QUIET, connect=10.0, read=read, pool=None))
        try:
            async for event, data in events:
                if event == "result":
                    return data
                if end is not None and time.monotonic() > end:
                    raise OperationTimeoutError(f"{method} {path}", limit)
                if event == "progress":
                    await _aio.call(on_progress, data)
        finally:
            await events.aclose()  # type: ignore[attr-defined]
        raise InternalError(f"{method} {path}: the server ended its answer without a result")


def lost(e: httpx.HTTPError) -> SmolVMError:
    """What a failure of the transport means."""
    request = None
    with contextlib.suppress(RuntimeError):
        request = e.request
    what = f"{request.method} {request.url.path}" if request is not None else "the request"
    if isinstance(e, httpx.TimeoutException):
        return OperationTimeoutError(what, message=f"{what}: the server said nothing for too long", cause=repr(e))
    return NetworkError(
        f"{what}: the server went away before it answered", cause=repr(e), remedy="call again: VMs and what runs in them are not concerned"
    )


connection = AsyncConnection()


@contextlib.asynccontextmanager
async def translated(vm_id: str | None = None, operation: str = "the request", **kinds: Any) -> AsyncIterator[None]:
    """Makes exceptions of refusals. What is missing may be the VM, or what was asked for in it."""
    try:
        yield
    except Refused as e:
        if e.code == "not_found" and "not_found" in kinds and vm_id is not None and not await exists(vm_id):
            kinds["not_found"] = VMNotFoundError
        raise from_problem(e.problem, vm_id=vm_id, operation=operation, **kinds) from None


async def exists(vm_id: str) -> bool:
    """Whether there is such a VM."""
    try:
        await connection.request("GET", f"/v1/sandboxes/{vm_id}")
    except Refused as e:
        return e.code != "not_found"
    return True


__all__ = [
    "CHUNK",
    "AlreadyExistsError",
    "AsyncConnection",
    "CommandExecutionUnavailableError",
    "Refused",
    "connection",
    "exists",
    "lost",
    "translated",
]
