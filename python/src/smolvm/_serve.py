"""Where the server is: one that is shared (SMOLVM_HOST), or a child of this process that ends with it.

The child is started at the first call, in a session of its own so that Ctrl-C is not for it. Its standard input is a pipe whose
other end we hold: when this process is gone, however it went, the child ends. A forked process closes that end, which is not
its own, and starts a child of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import select
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .exceptions import HostError, SmolVMError, ValidationError

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger("smolvm")

START_TIMEOUT = 30.0


@dataclass(frozen=True)
class Address:
    """A server: `socket` is the path of a unix socket, else `url` is where it answers."""

    url: str
    socket: str | None = None
    token: str | None = None
    generation: int = 0

    @property
    def local(self) -> bool:
        """Whether the server shares this host's files and processes."""
        return self.socket is not None


def binary() -> str:
    """Finds the program: SMOLVM_BIN, in this package's wheel, or in PATH."""
    named = os.environ.get("SMOLVM_BIN")
    if named:
        if not os.access(named, os.X_OK):
            raise HostError(f"SMOLVM_BIN: {named} is no program", remedy="unset SMOLVM_BIN, or let it name the smolvm program")
        return named
    inside = Path(__file__).parent / "bin" / "smolvm"
    if inside.exists():
        return str(inside)
    import shutil
    import sysconfig

    found = shutil.which("smolvm") or shutil.which("smolvm", path=sysconfig.get_path("scripts"))
    # A script of that name may be the upstream package's: only a real program can be ours.
    if found and _elf(found):
        return found
    raise HostError("the program smolvm is not there", remedy="install the wheel, put smolvm into PATH, or set SMOLVM_BIN")


def _elf(path: str) -> bool:
    try:
        with open(path, "rb") as f:
            return f.read(4) == b"\x7fELF"
    except OSError:
        return False


def shared() -> Address | None:
    """The server that SMOLVM_HOST names: unix:///PATH, a path, http://… or https://…, with SMOLVM_TOKEN."""
    host = os.environ.get("SMOLVM_HOST", "").strip()
    if not host:
        return None
    token = os.environ.get("SMOLVM_TOKEN", "").strip() or None
    if host.startswith("/"):
        return Address("http://smolvm", host, token)
    parts = urlsplit(host)
    if parts.scheme == "unix" and parts.path:
        return Address("http://smolvm", parts.path, token)
    if parts.scheme in ("http", "https") and parts.netloc:
        if token is None:
            raise ValidationError("SMOLVM_HOST names a server, and there is no SMOLVM_TOKEN", remedy="on the server: smolvm token")
        return Address(host.rstrip("/"), None, token)
    raise ValidationError(f"SMOLVM_HOST: {host!r} is neither unix:///PATH nor http(s)://HOST:PORT")


class Child:
    """The server of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: str | None = None
        self._address: Address | None = None
        self._generation = 0
        self._environment: tuple[str | None, ...] = ()

    def address(self) -> Address:
        """Where the server answers; it is started when it is not there, or no longer."""
        with self._lock:
            if self._process is not None and self._process.poll() is None and self._address and self._environment == _settings():
                return self._address
            self._end()
            self._address = self._start()
            return self._address

    def _start(self) -> Address:
        # Imported where they are needed, as programs that import this package may never start a server.
        import shutil
        import subprocess
        import tempfile

        program = binary()
        directory = tempfile.mkdtemp(prefix="smolvm-serve-")
        if len(directory) > 80:  # a socket's path has 108 bytes
            os.rmdir(directory)
            directory = tempfile.mkdtemp(prefix="smolvm-serve-", dir="/tmp")
        path = os.path.join(directory, "api.sock")
        # What it says is asked for only when it does not start. A file without a name needs no thread that reads it, and a process
        # with threads may not fork.
        said = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            process = subprocess.Popen(
                [program, "serve", "--socket", path, "--exit-with-stdin"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                cwd="/",
                start_new_session=True,
            )
        except OSError as e:
            shutil.rmtree(directory, ignore_errors=True)
            said.close()
            raise HostError(f"start {program}: {e}") from e
        self._process, self._directory, self._environment = process, directory, _settings()
        line = _first_line(process)
        if not line:
            process.kill()
            process.wait()
            self._end()
            said.seek(0)
            text = said.read(65536).decode(errors="replace").strip()
            said.close()
            raise HostError(f"smolvm serve did not start: {text or 'it said nothing'}", remedy=f"{program} doctor")
        said.close()
        self._generation += 1
        with contextlib.suppress(ValueError):
            log.debug("smolvm serve %s answers at %s", json.loads(line).get("version"), path)
        return Address("http://smolvm", path, None, self._generation)

    def _end(self) -> None:
        import shutil
        import subprocess

        process, directory = self._process, self._directory
        self._process = self._directory = self._address = None
        if process is not None:
            _close(process.stdin)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process.stdout)
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def close(self) -> None:
        """Ends the server; VMs are not concerned."""
        with self._lock:
            self._end()

    def forked(self) -> None:
        """Forgets a server that is the parent's, and its end of the pipe."""
        process = self._process
        self._lock = threading.Lock()
        self._process = self._directory = self._address = None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                _abandon(pipe)
            process.returncode = 0  # it is not ours to wait for, and its destructor shall say nothing


def _settings() -> tuple[str | None, ...]:
    """What a child got of the environment: one that changed needs another child."""
    return tuple(os.environ.get(k) for k in ("SMOLVM_HOME", "SMOLVM_BIN", "SMOLVM_ENGINE"))


def _close(pipe: object) -> None:
    with contextlib.suppress(OSError, ValueError):
        pipe.close()  # type: ignore[attr-defined]


def _abandon(pipe: object) -> None:
    # The buffered object may be locked by a thread that the fork did not take along: only the descriptor is closed, by
    # putting one of /dev/null in its place, so that nobody's later descriptor is closed instead.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, pipe.fileno(), inheritable=False)  # type: ignore[attr-defined]
        os.close(null)


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    fd, data, end = process.stdout.fileno(), b"", time.monotonic() + START_TIMEOUT
    while not data.endswith(b"\n") and len(data) < 65536:
        poll = select.poll()  # select.select() knows no descriptor above 1023
        poll.register(fd, select.POLLIN)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            return b""
        chunk = os.read(fd, 4096)
        if not chunk:
            return b""
        data += chunk
    return data


_child = Child()
atexit.register(_child.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_child.forked)


def address() -> Address:
    """Where the server answers, for the next request."""
    if sys.platform != "linux" and not os.environ.get("SMOLVM_HOST"):
        raise HostError("VMs run on Linux", remedy="set SMOLVM_HOST and SMOLVM_TOKEN to use a server on another machine")
    return shared() or running() or _child.address()


def running() -> Address | None:
    """This process's own server, if it runs."""
    process, there = _child._process, _child._address
    if process is not None and there is not None and process.poll() is None and _child._environment == _settings():
        return there
    return None


def close() -> None:
    """Ends this process's own server, if there is one. The next call starts another."""
    _child.close()


def child_pid() -> int | None:
    """The process id of this process's own server."""
    process = _child._process
    return process.pid if process is not None and process.poll() is None else None


__all__ = ["Address", "SmolVMError", "address", "binary", "child_pid", "close", "shared"]
