"""Files of a VM."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from .. import _aio
from ..exceptions import GuestFileNotFoundError, ValidationError
from ..models import FileInfo
from .base import AsyncBase
from .client import CHUNK, connection, translated

_bulk = httpx.Timeout(120.0, connect=10.0, pool=None)


def _absolute(path: str) -> str:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValidationError(f"path: {path!r} is not absolute in the VM")
    return path


def _query(path: str, **more: Any) -> str:
    return "?path=" + quote(path, safe="/") + "".join(f"&{k}={v}" for k, v in more.items())


class AsyncFiles(AsyncBase):
    """What a VM can do with files."""

    async def upload_file(self, local: str | Path, guest: str, *, make_dirs: bool = True, mode: int | None = None) -> str:
        """Copies a file of this host into the VM, and gives its path there. Behind a `/` at the end comes the file's name."""
        source = Path(local).expanduser()
        if not source.is_file():
            raise ValidationError(f"local: there is no file {source}")
        target = guest + source.name if guest.endswith("/") else guest
        bits = source.stat().st_mode & 0o777 if mode is None else mode
        await self._put(target, _aio.read_chunks(source, CHUNK), bits, make_dirs, source.stat().st_size)
        return target

    async def download_file(self, guest: str, local: str | Path, *, make_dirs: bool = True) -> str:
        """Copies a file of the VM to this host, and gives its path here. It appears whole or not at all."""
        target = Path(local).expanduser()
        if str(local).endswith("/") or target.is_dir():
            target = target / posixpath.basename(guest)
        if make_dirs:
            target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        path = await self._path("/files/content" + _query(_absolute(guest)))
        try:
            async with translated(await self._ready(), f"download {guest}", not_found=GuestFileNotFoundError):
                async with connection.streaming("GET", path, accept="application/octet-stream", timeout=_bulk) as response:
                    with open(part, "wb") as f:
                        async for chunk in response.aiter_raw():
                            f.write(chunk)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return str(target)

    async def read_file(self, path: str) -> bytes:
        """Gives what is in a file of the VM."""
        where = await self._path("/files/content" + _query(_absolute(path)))
        async with translated(await self._ready(), f"read {path}", not_found=GuestFileNotFoundError):
            async with connection.streaming("GET", where, accept="application/octet-stream", timeout=_bulk) as response:
                return await response.aread()

    async def read_text(self, path: str, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Gives what is in a file of the VM as text."""
        return (await self.read_file(path)).decode(encoding, errors)

    async def write_file(self, path: str, data: bytes | str, *, mode: int = 0o644, make_dirs: bool = True) -> str:
        """Writes a file of the VM, and gives its path."""
        raw = data.encode() if isinstance(data, str) else bytes(data)
        await self._put(path, raw, mode, make_dirs, len(raw))
        return path

    async def _put(self, path: str, content: Any, mode: int, make_dirs: bool, size: int) -> None:
        _absolute(path)
        parent = posixpath.dirname(path)
        if make_dirs and parent not in ("/", "/root", "/tmp"):  # noqa: S108
            await self.make_dir(parent)
        where = await self._path("/files/content" + _query(path, mode=f"{mode:04o}"))
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        async with translated(await self._ready(), f"write {path}", not_found=GuestFileNotFoundError):
            await connection.request("PUT", where, content=content, headers=headers, timeout=_bulk)

    async def make_dir(self, path: str, *, mode: int = 0o755, parents: bool = True) -> None:
        """Makes a directory of the VM; one that is there already stays as it is."""
        body = {"path": _absolute(path), "mode": f"{mode:04o}", "parents": parents}
        await self._call("POST", "/files/mkdir", body, operation=f"make {path}", file=True)

    async def list_dir(self, path: str) -> list[FileInfo]:
        """Tells what is in a directory of the VM."""
        answer = await self._call("GET", "/files/list" + _query(_absolute(path)), operation=f"list {path}", file=True)
        return [FileInfo.from_wire(entry) for entry in answer["entries"]]

    async def stat_file(self, path: str) -> FileInfo:
        """Tells the facts of a file of the VM."""
        return FileInfo.from_wire(await self._call("GET", "/files/stat" + _query(_absolute(path)), operation=f"stat {path}", file=True))

    async def remove_file(self, path: str, *, recursive: bool = False) -> None:
        """Removes a file of the VM, or with `recursive` a directory and what is in it."""
        more = {"recursive": "true"} if recursive else {}
        await self._call("DELETE", "/files" + _query(_absolute(path), **more), operation=f"remove {path}", file=True)

    async def move_file(self, source: str, target: str) -> None:
        """Gives a file of the VM another name."""
        body = {"from": _absolute(source), "to": _absolute(target)}
        await self._call("POST", "/files/move", body, operation=f"move {source}", file=True)
