"""Images that may be logged in to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..exceptions import ImageError
from ..utils import read_public_key
from .client import connection, translated


class AsyncImageBuilder:
    """Gives kernels and root file systems for `VMConfig(kernel_path=, rootfs_path=)`.

    They are SmolVM's own and shared by all VMs: but for the first time nothing is built.
    """

    def __init__(self, cache_dir: str | Path | None = None, *, on_progress: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self._on_progress = on_progress
        if cache_dir is not None:
            raise ImageError("cache_dir: images lie in SMOLVM_HOME", remedy="set SMOLVM_HOME, or leave cache_dir out")

    async def build_debian_ssh_key(
        self, ssh_public_key: str | Path, name: str = "debian-ssh-key", rootfs_size_mb: int = 2048
    ) -> tuple[Path, Path]:
        """Gives a kernel and a Debian whose root may log in with this key, the text or the path of a public key.

        `rootfs_size_mb` is the size of the disk that VMs get which are made from it.
        """
        key = await _key(ssh_public_key)
        body = {"ssh_public_key": key, "name": name, "rootfs_size_mb": rootfs_size_mb}
        async with translated(operation="build the image"):
            answer = await connection.long("POST", "/v1/images/ssh", body, on_progress=self._on_progress)
        return Path(answer["kernel_path"]), Path(answer["rootfs_path"])

    async def build_alpine_ssh_key(self, ssh_public_key: str | Path, **options: Any) -> tuple[Path, Path]:
        """Is refused: the guests are Debian."""
        raise ImageError("there is no Alpine image", remedy="build_debian_ssh_key")


async def _key(key: str | Path) -> str:
    from .. import _aio

    return await _aio.run_blocking(read_public_key, key)
