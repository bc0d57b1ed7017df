"""The exceptions of SmolVM: one class for each class of failure that the server knows.

All derive from :class:`SmolVMError`, which tells what failed (`str(e)`), why (`e.cause`) and what helps (`e.remedy`).
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AccessDeniedError",
    "AlreadyExistsError",
    "CommandBlockedError",
    "CommandExecutionUnavailableError",
    "CommandFailedError",
    "EngineError",
    "ExhaustedError",
    "FirecrackerAPIError",
    "GuestFileNotFoundError",
    "HostError",
    "ImageError",
    "InternalError",
    "NetworkError",
    "NotFoundError",
    "OperationTimeoutError",
    "SmolVMError",
    "VMAlreadyExistsError",
    "VMNotFoundError",
    "ValidationError",
    "WrongStateError",
]


class SmolVMError(Exception):
    """Something of SmolVM failed."""

    code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        cause: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross the boundaries of processes (pytest-xdist, concurrent.futures): their arguments are not message alone.
        return _revive, (type(self), self.message, self.__dict__.copy())


def _revive(kind: type[SmolVMError], message: str, state: dict[str, Any]) -> SmolVMError:
    e = kind.__new__(kind, message)
    e.args = (message,)
    e.__dict__.update(state)
    return e


class ValidationError(SmolVMError, ValueError):
    """What was asked for cannot be; the message names the field. It is a ValueError too."""

    code = "invalid"


class NotFoundError(SmolVMError):
    """There is no such thing."""

    code = "not_found"


class VMNotFoundError(NotFoundError):
    """There is no VM with this id."""

    vm_id: str = ""


class GuestFileNotFoundError(NotFoundError, FileNotFoundError):
    """There is no such file in the VM. It is a FileNotFoundError too."""


class AlreadyExistsError(SmolVMError):
    """The name, or the port of this host, is taken."""

    code = "already_exists"


class VMAlreadyExistsError(AlreadyExistsError):
    """There is a VM with this id already: `SmolVM.from_id(...)` takes it."""

    vm_id: str = ""


class WrongStateError(SmolVMError):
    """This is not possible in the VM's present state."""

    code = "wrong_state"


class OperationTimeoutError(SmolVMError, TimeoutError):
    """A time limit passed. Of a command, `stdout` and `stderr` are what it had printed. It is a TimeoutError too."""

    code = "timeout"

    def __init__(
        self,
        operation: str,
        timeout_seconds: float | None = None,
        stdout: str = "",
        stderr: str = "",
        *,
        message: str | None = None,
        remedy: str | None = None,
        cause: str | None = None,
    ) -> None:
        if message is None:
            message = f"{operation} timed out" + (f" after {timeout_seconds:g} s" if timeout_seconds is not None else "")
        super().__init__(message, cause=cause, remedy=remedy)
        self.operation = operation
        self.timeout_seconds = timeout_seconds
        self.stdout = stdout
        self.stderr = stderr


class CommandExecutionUnavailableError(SmolVMError):
    """No command can be run in the VM, or the one that ran was lost with it: `reason` tells why."""

    code = "unavailable"

    def __init__(
        self,
        vm_id: str | None,
        reason: str,
        remedy: str | None = None,
        *,
        cause: str | None = None,
    ) -> None:
        super().__init__(f"{vm_id}: {reason}" if vm_id else reason, cause=cause, remedy=remedy)
        self.vm_id = vm_id
        self.reason = reason
        self.remediation = remedy


class CommandFailedError(SmolVMError):
    """A command that `check=True` was asked of did not exit with 0: `result` is how it ended."""

    code = "command_failed"

    def __init__(self, command: str, result: Any) -> None:
        last = result.stderr.strip().splitlines()[-1:] or result.stdout.strip().splitlines()[-1:]
        super().__init__(f"exit code {result.exit_code}: {command[:200]}" + (f": {last[0][:500]}" if last else ""))
        self.command = command
        self.result = result


class CommandBlockedError(SmolVMError):
    """A callback forbade a command: raise it in `on_pre_run`."""

    code = "blocked"

    def __init__(self, message: str, vm_id: str | None = None, command: Any = None) -> None:
        super().__init__(message)
        self.vm_id = vm_id
        self.command = command


class HostError(SmolVMError):
    """This machine lacks a tool, a permission or a device."""

    code = "host"


class ImageError(SmolVMError):
    """An image or a kernel cannot be built, found or trusted."""

    code = "image"


class NetworkError(SmolVMError):
    """The network of a VM failed, or the way to the server."""

    code = "network"


class EngineError(SmolVMError):
    """The virtual machine monitor failed; the message holds the end of the guest's console."""

    code = "engine"


FirecrackerAPIError = EngineError  # the name it has in the upstream package


class AccessDeniedError(SmolVMError):
    """A policy or a permission forbids it."""

    code = "denied"


class ExhaustedError(SmolVMError):
    """A limit is reached, or a resource used up."""

    code = "exhausted"


class InternalError(SmolVMError):
    """A fault of SmolVM's own."""


# The one table from the server's classes to exceptions. Every class of errdefs is in it; a test compares them.
BY_CODE: dict[str, type[SmolVMError]] = {
    "invalid": ValidationError,
    "not_found": NotFoundError,
    "already_exists": AlreadyExistsError,
    "wrong_state": WrongStateError,
    "timeout": OperationTimeoutError,
    "unavailable": CommandExecutionUnavailableError,
    "host": HostError,
    "image": ImageError,
    "network": NetworkError,
    "engine": EngineError,
    "denied": AccessDeniedError,
    "exhausted": ExhaustedError,
    "internal": InternalError,
}


def from_problem(
    problem: dict[str, Any],
    *,
    vm_id: str | None = None,
    operation: str = "the request",
    not_found: type[SmolVMError] | None = None,
    already_exists: type[SmolVMError] | None = None,
) -> SmolVMError:
    """Makes the exception that a problem (RFC 9457) of the server stands for."""
    code = str(problem.get("code") or "internal")
    detail = str(problem.get("detail") or problem.get("title") or f"the server said {problem.get('status')}")
    cause, remedy = problem.get("cause"), problem.get("remedy")
    kind = BY_CODE.get(code, InternalError)
    if code == "not_found" and not_found is not None:
        kind = not_found
    if code == "already_exists" and already_exists is not None:
        kind = already_exists
    e: SmolVMError
    if kind is CommandExecutionUnavailableError:
        return CommandExecutionUnavailableError(vm_id, detail, remedy, cause=cause)
    if kind is OperationTimeoutError:
        return OperationTimeoutError(operation, message=detail, remedy=remedy, cause=cause)
    e = kind(detail, {"errors": problem["errors"]} if problem.get("errors") else None, cause=cause, remedy=remedy)
    if isinstance(e, VMNotFoundError | VMAlreadyExistsError):
        e.vm_id = vm_id or ""
    return e
