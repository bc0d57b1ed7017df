"""SmolVM: disposable microVMs for AI agents.

>>> from smolvm import SmolVM
>>> with SmolVM() as vm:  # doctest: +SKIP
...     print(vm.run("python3 --version").output)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._serve import close as close_server
from ._sync.builder import ImageBuilder
from ._sync.process import Process
from ._sync.vm import SmolVM
from ._version import __version__
from .exceptions import (
    AccessDeniedError,
    AlreadyExistsError,
    CommandBlockedError,
    CommandExecutionUnavailableError,
    CommandFailedError,
    EngineError,
    ExhaustedError,
    FirecrackerAPIError,
    GuestFileNotFoundError,
    HostError,
    ImageError,
    InternalError,
    NetworkError,
    NotFoundError,
    OperationTimeoutError,
    SmolVMError,
    ValidationError,
    VMAlreadyExistsError,
    VMNotFoundError,
    WrongStateError,
)
from .models import (
    SSH_BOOT_ARGS,
    Callback,
    CommandResult,
    FileInfo,
    InternetSettings,
    NetRecord,
    NetworkPolicy,
    NetworkRule,
    Port,
    ProcessInfo,
    RunContext,
    Secret,
    VMConfig,
    VMInfo,
    VMState,
)

if TYPE_CHECKING:
    from ._async.builder import AsyncImageBuilder
    from ._async.process import AsyncProcess
    from ._async.vm import AsyncSmolVM

_LAZY = {"AsyncSmolVM": "vm", "AsyncImageBuilder": "builder", "AsyncProcess": "process"}


def __getattr__(name: str) -> Any:
    # Who works without asyncio does not wait for its half to be imported.
    if name in _LAZY:
        import importlib

        value = getattr(importlib.import_module(f"._async.{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "SSH_BOOT_ARGS",
    "AccessDeniedError",
    "AlreadyExistsError",
    "AsyncImageBuilder",
    "AsyncProcess",
    "AsyncSmolVM",
    "Callback",
    "CommandBlockedError",
    "CommandExecutionUnavailableError",
    "CommandFailedError",
    "CommandResult",
    "EngineError",
    "ExhaustedError",
    "FileInfo",
    "FirecrackerAPIError",
    "GuestFileNotFoundError",
    "HostError",
    "ImageBuilder",
    "ImageError",
    "InternalError",
    "InternetSettings",
    "NetRecord",
    "NetworkError",
    "NetworkPolicy",
    "NetworkRule",
    "NotFoundError",
    "OperationTimeoutError",
    "Port",
    "Process",
    "ProcessInfo",
    "RunContext",
    "Secret",
    "SmolVM",
    "SmolVMError",
    "VMAlreadyExistsError",
    "VMConfig",
    "VMInfo",
    "VMNotFoundError",
    "VMState",
    "ValidationError",
    "WrongStateError",
    "__version__",
    "close_server",
]
