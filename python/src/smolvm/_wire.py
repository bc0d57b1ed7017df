"""What the asynchronous and the synchronous client share: bodies, events, limits. No I/O."""

from __future__ import annotations

import base64
import codecs
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .exceptions import OperationTimeoutError, ValidationError
from .models import CommandResult, check_env

DEFAULT_RUN_TIMEOUT = 900.0
OUTPUT_LIMIT = 16 << 20
GUEST_IP = "10.83.0.2"  # the same in every VM: each has a network of its own

JSON_HEADERS = {"Content-Type": "application/json"}

_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def dumps(value: Any) -> bytes:
    """JSON, as short as it gets. Text that is no Unicode (lone surrogates) is refused by name."""
    try:
        return _dumps(value).encode()
    except UnicodeEncodeError as e:
        raise ValidationError("text with lone surrogates is no Unicode: pass bytes where the call takes them") from e


def segment(text: str) -> str:
    """A part of a URL's path."""
    return quote(text, safe="")


def run_timeout(own: float | None, default: float | None) -> float:
    """Seconds that a command may take; 0 stands for no limit."""
    value = own if own is not None else default
    if value is None:
        text = os.environ.get("SMOLVM_RUN_TIMEOUT", "").strip()
        try:
            value = float(text) if text else DEFAULT_RUN_TIMEOUT
        except ValueError:
            raise ValidationError(f"SMOLVM_RUN_TIMEOUT: {text!r} is no number of seconds") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value <= 0:
        raise ValidationError(f"timeout: {value!r} is no positive number of seconds", remedy="float('inf') stands for no limit")
    return 0.0 if math.isinf(value) else float(value)


def exec_request(
    command: str | Sequence[str],
    *,
    shell: str = "login",
    timeout: float = 0.0,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
) -> dict[str, Any]:
    """A command as the HTTP API has it: a string is for a shell, a list is a program with its arguments."""
    body: dict[str, Any] = {}
    if isinstance(command, str):
        if not command.strip():
            raise ValidationError("command: it is empty")
        if shell not in ("login", "raw"):
            raise ValidationError(f"shell: {shell!r} is neither 'login' nor 'raw'")
        body["script"] = command
        if shell == "login":
            body["login"] = True
    elif isinstance(command, Sequence) and not isinstance(command, bytes | bytearray):
        argv = [os.fspath(a) if isinstance(a, os.PathLike) else a for a in command]
        if not argv or not all(isinstance(a, str) for a in argv):
            raise ValidationError("command: a list is a program and its arguments, all of them strings")
        body["argv"] = argv
    else:
        raise ValidationError(f"command: {type(command).__name__} is neither a string nor a list of strings")
    if timeout:
        body["timeout_ms"] = max(1, round(timeout * 1000))
    if cwd is not None:
        body["cwd"] = os.fspath(cwd)
    if env:
        try:
            body["env"] = check_env(env)
        except ValueError as e:
            raise ValidationError(f"env: {e}") from None
    if user is not None:
        body["user"] = user
    return body


def with_input(body: dict[str, Any], stdin: str | bytes | None) -> None:
    """Adds what a command reads."""
    if stdin is None:
        return
    if isinstance(stdin, str):
        body["input"] = stdin
    elif isinstance(stdin, bytes | bytearray | memoryview):
        body["input_base64"] = base64.b64encode(stdin).decode()
    else:
        raise ValidationError(f"stdin: {type(stdin).__name__} is neither str nor bytes")


def command_result(wire: Mapping[str, Any]) -> CommandResult:
    """Reads the answer to exec."""
    stderr = wire["stderr"]
    if not stderr and wire.get("error"):
        stderr = wire["error"] + "\n"
    return CommandResult(
        wire["exit_code"],
        wire["stdout"],
        stderr,
        wire["duration_ms"] / 1000,
        bool(wire.get("stdout_truncated") or wire.get("stderr_truncated")),
    )


def timed_out(command: str | Sequence[str], seconds: float, result: CommandResult) -> OperationTimeoutError:
    """What is raised for a command that took too long."""
    text = command if isinstance(command, str) else " ".join(command)
    short = text if len(text) <= 80 else text[:77] + "..."
    return OperationTimeoutError(f"run {short!r}", seconds, result.stdout, result.stderr, remedy="give it more: timeout=SECONDS")


class Events:
    """Puts server-sent events together from their lines."""

    def __init__(self) -> None:
        self._event = ""
        self._data: list[str] = []

    def feed(self, line: str) -> tuple[str, Any] | None:
        """Takes a line, and gives the event that it ended."""
        if line:
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif line.startswith("event:"):
                self._event = line[6:].strip()
            return None
        if not self._data:
            self._event = ""
            return None
        event, data = self._event or "message", json.loads("\n".join(self._data))
        self._event, self._data = "", []
        return event, data


class Output:
    """Collects one stream of output, bounded, and decodes it as it comes."""

    def __init__(self, limit: int = OUTPUT_LIMIT) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: list[str] = []
        self._room = limit
        self.truncated = False

    def add(self, data: bytes, *, final: bool = False) -> str:
        """Takes bytes and gives what they mean as text; an incomplete character waits for the next ones."""
        text = self._decoder.decode(data, final)
        if text and self._room > 0:
            self._parts.append(text[: self._room])
            self.truncated |= len(text) > self._room
            self._room -= len(text)
        elif text:
            self.truncated = True
        return text

    @property
    def text(self) -> str:
        """All that was kept."""
        return "".join(self._parts)


def streamed_result(wire: Mapping[str, Any], stdout: Output, stderr: Output) -> CommandResult:
    """Puts the result of a command together whose output was streamed."""
    err = stderr.text
    if not err and wire.get("error"):
        err = wire["error"] + "\n"
    return CommandResult(wire["exit_code"], stdout.text, err, wire.get("guest_us", 0) / 1e6, stdout.truncated or stderr.truncated)


def rows_cols(size: tuple[int, int] | None) -> dict[str, int]:
    """The size of a terminal as (rows, columns)."""
    rows, cols = size or (24, 80)
    return {"rows": rows, "cols": cols}
