"""What the parts of a VM's surface share."""

from __future__ import annotations

from typing import Any

from .._wire import segment
from ..exceptions import GuestFileNotFoundError, NotFoundError
from .client import connection, translated


class AsyncBase:
    """A VM that may not be made yet."""

    async def _ready(self) -> str:
        """Makes the VM if it is not there yet, and gives its id."""
        raise NotImplementedError

    async def _path(self, rest: str = "") -> str:
        return f"/v1/sandboxes/{segment(await self._ready())}{rest}"

    async def _call(self, method: str, rest: str, body: Any = None, *, operation: str, file: bool = False, **options: Any) -> Any:
        path = await self._path(rest)
        missing: dict[str, Any] = {"not_found": GuestFileNotFoundError if file else NotFoundError}
        async with translated(await self._ready(), operation, **missing):
            return await connection.request(method, path, body, **options)
