"""Commands with which one talks while they run."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

from .. import _aio
from .._wire import Output, rows_cols, segment, streamed_result
from ..exceptions import CommandExecutionUnavailableError, OperationTimeoutError, SmolVMError, ValidationError, from_problem
from ..models import CommandResult
from .client import connection, translated


class AsyncProcess:
    """A command in a VM: `vm.process(...)` starts one, `vm.attach(...)` joins one.

    Iterating gives what it prints as pairs of a stream's name and bytes. Leaving the `with` block ends a command that was
    started here, and leaves one that runs in the background or that was joined.
    """

    def __init__(self, vm_id: str, socket: Any, *, own: bool, timeout: float = 0.0) -> None:
        self._vm_id = vm_id
        self._socket = socket
        self._own = own
        self._timeout = timeout
        self._stdout, self._stderr = Output(), Output()
        self._result: CommandResult | None = None
        self.process_id = ""
        """Its name in the VM: `vm.attach(process_id)` joins it."""
        self.pid = 0
        """In the guest."""
        self.offset = 0
        """How much of its output was read."""

    async def _begin(self) -> AsyncProcess:
        while not self.process_id:
            message = await self._receive()
            if message is None:
                raise CommandExecutionUnavailableError(self._vm_id, "the connection ended before the command began")
            kind, data = message
            if kind in ("started", "process"):
                self.process_id, self.pid = data["exec_id"], data.get("pid", 0)
        return self

    async def _receive(self) -> tuple[str, Any] | None:
        from websockets.exceptions import ConnectionClosed

        try:
            message = await self._socket.recv()
        except ConnectionClosed:
            return None
        if isinstance(message, bytes):
            return ("stdout" if message[:1] == b"\x01" else "stderr"), message[1:]
        data = json.loads(message)
        kind = data.pop("type", "")
        if kind == "error":
            raise from_problem(data, vm_id=self._vm_id, operation="the command")
        return kind, data

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        while self._result is None:
            message = await self._receive()
            if message is None:
                raise CommandExecutionUnavailableError(
                    self._vm_id, "the connection ended while the command ran", f"vm.attach({self.process_id!r}) joins it again"
                )
            kind, data = message
            if kind in ("stdout", "stderr"):
                self.offset += len(data)
                (self._stdout if kind == "stdout" else self._stderr).add(data)
                yield kind, data
            elif kind == "gap":
                self.offset += data["bytes"]
                self._stdout.truncated = True
            elif kind == "exit":
                self._stdout.add(b"", final=True)
                self._stderr.add(b"", final=True)
                self._result = streamed_result(data, self._stdout, self._stderr)
                if data.get("timed_out"):
                    raise OperationTimeoutError("the command", self._timeout or None, self._result.stdout, self._result.stderr)

    async def write(self, data: bytes | str) -> None:
        """Writes to its standard input; `process(..., stdin=True)` gave it one."""
        raw = data.encode() if isinstance(data, str) else bytes(data)
        for start in range(0, len(raw), 256 << 10):
            await self._send(raw[start : start + (256 << 10)])

    async def close_stdin(self) -> None:
        """Ends its standard input."""
        await self._send(json.dumps({"type": "stdin_end"}))

    async def resize(self, rows: int, cols: int) -> None:
        """Tells it the size of its terminal."""
        await self._send(json.dumps({"type": "resize", "rows": rows, "cols": cols}))

    async def signal(self, name: str | int = "SIGTERM", *, group: bool = False) -> None:
        """Sends it a signal; `group` is for all that it started too."""
        await self._send(json.dumps({"type": "signal", "signal": str(name), "group": group}))

    async def kill(self) -> None:
        """Kills it and all that it started."""
        await self.signal("SIGKILL", group=True)

    async def _send(self, message: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._socket.send(message)
        except ConnectionClosed as e:
            raise CommandExecutionUnavailableError(self._vm_id, "the command has ended, or the connection to it") from e

    async def wait(self) -> CommandResult:
        """Reads its output to the end and tells how it ended."""
        async for _ in self:
            pass
        assert self._result is not None
        return self._result

    @property
    def result(self) -> CommandResult | None:
        """How it ended; None while it runs."""
        return self._result

    async def detach(self) -> None:
        """Leaves it; a command that was not started in the background ends."""
        await self._socket.close()

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await self.detach()


async def begin(vm_id: str, body: dict[str, Any], timeout: float) -> AsyncProcess:
    """Starts a command that ends with its connection."""
    process = await _open(vm_id, f"/v1/sandboxes/{segment(vm_id)}/exec/ws", own=True, timeout=timeout)
    try:
        await process._send(json.dumps(body))
        return await process._begin()
    except BaseException:
        await process.detach()
        raise


async def background(vm_id: str, body: dict[str, Any]) -> str:
    """Starts a command that nobody needs to wait for."""
    async with translated(vm_id, "start the command"):
        started = await connection.request("POST", f"/v1/sandboxes/{segment(vm_id)}/processes", body)
    return str(started["exec_id"])


async def join(vm_id: str, process_id: str, *, offset: int = 0, stdin: bool = True) -> AsyncProcess:
    """Joins a command that runs, or that has ended not long ago."""
    flag = "true" if stdin else "false"
    path = f"/v1/sandboxes/{segment(vm_id)}/processes/{segment(process_id)}/ws?offset={offset}&stdin={flag}"
    process = await _open(vm_id, path, own=False)
    process.offset = offset
    try:
        return await process._begin()
    except BaseException:
        await process.detach()
        raise


async def _open(vm_id: str, path: str, *, own: bool, timeout: float = 0.0) -> AsyncProcess:
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    address = await connection.address()
    try:
        socket = await _aio.websocket(address, path)
    except InvalidStatus as e:
        raise _refused(vm_id, e.response) from None
    except (InvalidHandshake, OSError, TimeoutError) as e:
        raise CommandExecutionUnavailableError(vm_id, f"no connection to the server: {e}") from e
    return AsyncProcess(vm_id, socket, own=own, timeout=timeout)


def _refused(vm_id: str, response: Any) -> SmolVMError:
    try:
        problem = json.loads(response.body or b"")
    except ValueError:
        problem = {"code": "internal", "detail": f"the server said {response.status_code} to a WebSocket"}
    return from_problem(problem, vm_id=vm_id, operation="the command")


def tty_of(tty: bool | tuple[int, int]) -> dict[str, Any] | None:
    """The terminal of a command: True, or its size as (rows, columns)."""
    if tty is False:
        return None
    if tty is True:
        return rows_cols(None)
    if not (isinstance(tty, tuple) and len(tty) == 2 and all(isinstance(n, int) and 0 < n < 65536 for n in tty)):
        raise ValidationError("tty: give True, or its size as (rows, columns)")
    return rows_cols(tty)


def decode(data: str) -> bytes:
    """Bytes of an event."""
    return base64.b64decode(data)
