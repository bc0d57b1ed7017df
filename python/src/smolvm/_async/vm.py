"""The VM itself."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from pydantic import SecretStr

from .. import _aio, _lease, _serve, _wire
from .._wire import JSON_HEADERS, dumps, segment
from ..exceptions import (
    CommandExecutionUnavailableError,
    CommandFailedError,
    HostError,
    NetworkError,
    NotFoundError,
    OperationTimeoutError,
    SmolVMError,
    ValidationError,
    VMAlreadyExistsError,
    VMNotFoundError,
    WrongStateError,
)
from ..models import (
    Callback,
    CommandResult,
    InternetSettings,
    NetworkPolicy,
    ProcessInfo,
    RunContext,
    Secret,
    VMConfig,
    VMInfo,
    VMState,
    check_env,
    validate_policy,
)
from ..utils import public_key_of
from . import process as processes
from .client import Refused, connection, translated
from .files import AsyncFiles
from .network import AsyncNetwork
from .process import AsyncProcess

log = logging.getLogger("smolvm")

_FAILED = (VMState.ERROR, VMState.BROKEN)
_LIVE = (VMState.RUNNING, VMState.STARTING, VMState.PAUSED)


class AsyncSmolVM(AsyncFiles, AsyncNetwork):
    """A microVM.

    In a `with` block it runs, and is gone afterwards; it is gone too when this process is killed. Without one it stays until
    `delete()`, and `from_id` finds it again.
    """

    def __init__(
        self,
        config: VMConfig | Mapping[str, Any] | None = None,
        *,
        vm_id: str | None = None,
        image: str | None = None,
        memory: int | None = None,
        vcpu_count: int | None = None,
        disk_size: int | None = None,
        backend: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        secrets: Mapping[str, Secret | Mapping[str, Any] | Sequence[str] | str] | None = None,
        policy: NetworkPolicy | Mapping[str, Any] | str | None = None,
        internet_settings: InternetSettings | Mapping[str, Any] | None = None,
        ssh_user: str = "root",
        ssh_key_path: str | Path | None = None,
        timeout: float | None = None,
        callbacks: Iterable[Callback] = (),
        on_progress: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        """Makes a VM of `config`; what is named beside it comes before what the configuration says.

        `timeout` is what `run` gives a command that names none, `on_progress` hears of the image's making and of the boot.
        """
        given = config if isinstance(config, VMConfig) else VMConfig(**dict(config or {}))
        over: dict[str, Any] = {
            "vm_id": vm_id,
            "image": image,
            "memory": memory,
            "vcpu_count": vcpu_count,
            "disk_size_mib": disk_size,
            "backend": backend,
            "env_vars": env_vars,
            "secrets": secrets,
            "policy": validate_policy(policy) if policy is not None else None,
            "internet_settings": internet_settings,
        }
        over = {k: v for k, v in over.items() if v is not None}
        if over:
            kept = {name: getattr(given, name) for name in given.model_fields_set}
            if "policy" in over or "internet_settings" in over:
                kept.pop("policy", None)
                kept.pop("internet_settings", None)
            given = VMConfig(**{**kept, **over})
        self._config: VMConfig | None = given
        self._setup(given.vm_id or "", ssh_user, ssh_key_path, timeout, callbacks, on_progress)
        _aio.constructed(self._ready)

    def _setup(
        self,
        vm_id: str,
        ssh_user: str,
        ssh_key_path: str | Path | None,
        timeout: float | None,
        callbacks: Iterable[Callback] = (),
        on_progress: Callable[..., Any] | None = None,
    ) -> None:
        if timeout is not None:
            _wire.run_timeout(timeout, None)
        self._id = vm_id
        self._made = False  # by this object
        self._maker = 0  # the process that made it
        self._there = False
        self._entered = False
        self._ssh_user = ssh_user
        self._ssh_key_path = Path(ssh_key_path).expanduser() if ssh_key_path is not None else None
        self._timeout = timeout
        self._callbacks = list(callbacks)
        self._on_progress = on_progress
        self._exec_path = ""
        self._info: VMInfo | None = None
        self._given: dict[str, SecretStr] = {}  # values of secrets that were given afterwards
        self._making = _aio.Lock()

    @classmethod
    async def create(cls, config: VMConfig | Mapping[str, Any] | None = None, **options: Any) -> AsyncSmolVM:
        """Makes a VM at once, and does not start it. The arguments are the constructor's."""
        vm = cls(config, **options)
        await vm._ready()
        return vm

    @classmethod
    async def from_id(
        cls,
        vm_id: str,
        *,
        ssh_user: str = "root",
        ssh_key_path: str | Path | None = None,
        timeout: float | None = None,
        callbacks: Iterable[Callback] = (),
        secrets: Mapping[str, str] | None = None,
    ) -> AsyncSmolVM:
        """Finds a VM that is there already. In a `with` block it is started, and left running at its end.

        `secrets` are values of its secrets by name, which a start needs; those whose source is a variable are found by themselves.
        """
        vm = cls.__new__(cls)
        vm._config = None
        VMConfig(vm_id=vm_id)
        vm._setup(vm_id, ssh_user, ssh_key_path, timeout, callbacks)
        vm._there = True
        vm._given = {name: SecretStr(value) for name, value in (secrets or {}).items()}
        await vm.refresh()
        return vm

    @classmethod
    async def list_vms(cls, *, all: bool = True) -> list[VMInfo]:
        """Tells which VMs there are; `all=False` leaves those out that do not run."""
        async with translated(operation="list VMs"):
            answer = await connection.request("GET", "/v1/sandboxes" + ("?all=true" if all else ""))
        return [VMInfo.from_wire(vm) for vm in answer["sandboxes"]]

    @classmethod
    async def create_many(
        cls,
        configs: Iterable[VMConfig | Mapping[str, Any] | None] | int,
        *,
        concurrency: int | None = None,
        start: bool = True,
        **options: Any,
    ) -> list[AsyncSmolVM]:
        """Makes several VMs, and starts them. When one fails, the others are deleted and the failure is raised."""
        wanted = [None] * configs if isinstance(configs, int) else list(configs)
        vms: list[AsyncSmolVM] = []

        async def one(config: VMConfig | Mapping[str, Any] | None) -> AsyncSmolVM:
            vm = cls(config, **options)
            vms.append(vm)
            await vm._ready()
            return await vm.start() if start else vm

        calls: list[Callable[[], Awaitable[AsyncSmolVM]]] = [lambda config=c: one(config) for c in wanted]  # type: ignore[misc]
        done = await _aio.gather(calls, concurrency or 4) if calls else []
        failed = [r for r in done if isinstance(r, BaseException)]
        if failed:
            for vm in vms:
                if vm._made:
                    with contextlib.suppress(SmolVMError):
                        await vm.delete()
            raise failed[0]
        return [r for r in done if not isinstance(r, BaseException)]

    async def _ready(self) -> str:
        if not self._there:
            async with self._making:
                if not self._there:
                    await self._make()
        return self._id

    async def _make(self) -> None:
        assert self._config is not None
        address = await connection.address()
        wire = self._config.to_wire()
        if self._ssh_key_path is not None:
            key = await _aio.run_blocking(public_key_of, self._ssh_key_path)
            wire["authorized_keys"] = list(dict.fromkeys([*wire.get("authorized_keys", []), key]))
        if self._config.secrets:
            if address.local:  # elsewhere our variables mean nothing
                for s in wire["secrets"]:
                    if source := self._config.secrets[s["name"]].source_of(s["name"]):
                        s["source"] = source
            wire["secret_values"] = self._secret_values()
        if self._entered:  # from its first moment bound to us
            wire |= _lease.owner(address)
        async with translated(self._id or None, "create the VM", already_exists=VMAlreadyExistsError):
            answer = await connection.long("POST", "/v1/sandboxes", wire, on_progress=self._on_progress)
        self._id = answer["id"]
        self._info = VMInfo.from_wire(answer)
        self._there = self._made = True
        self._maker = os.getpid()
        if self._entered:
            _lease.hold(address, self._id)

    async def __aenter__(self) -> AsyncSmolVM:
        self._entered = True
        try:
            was_there = self._there
            await self._ready()
            if self._made and was_there:
                await self._bind()
            await self.start()
        except BaseException:
            self._entered = False
            if self._made:
                with contextlib.suppress(Exception):
                    await _aio.shielded(self.delete)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._entered = False
        if not self._made or not self._there or self._maker != os.getpid():  # a forked process leaves its parent's VM alone
            return
        try:
            await _aio.shielded(self.delete)
        except VMNotFoundError:
            return
        except SmolVMError as e:
            if value is None:
                raise
            log.warning("VM %s was not deleted: %s", self._id, e)

    async def _bind(self) -> None:
        """Has the VM go when this process goes."""
        address = await connection.address()
        await self._call("PUT", "/owner", _lease.owner(address), operation="bind the VM to this process")
        _lease.hold(address, self._id)

    async def close(self) -> None:
        """Lets go of the VM, which goes on: also when this process ends, and when a `with` block does."""
        if self._there and self._made:
            if self._entered:
                await self._call("PUT", "/owner", {"owner": "keep"}, operation="keep the VM")
            _lease.release(self._id)
        self._made = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id or '(not made yet)'}>"

    # What it is.

    @property
    def vm_id(self) -> str:
        """The VM's id."""
        if not self._id:
            raise SmolVMError("the VM is not made yet", remedy="await vm.start() first, or name it: VMConfig(vm_id=...)")
        return self._id

    @property
    async def status(self) -> VMState:
        """Where the VM is in its life, asked for anew each time."""
        return (await self.refresh()).status

    @property
    async def info(self) -> VMInfo:
        """All that is known of the VM, asked for anew each time."""
        return await self.refresh()

    async def refresh(self) -> VMInfo:
        """Asks for all that is known of the VM."""
        path = await self._path()
        async with translated(self._id, "look at the VM", not_found=VMNotFoundError):
            self._info = VMInfo.from_wire(await connection.request("GET", path))
        return self._info

    async def stats(self) -> dict[str, Any]:
        """Tells what the VM uses."""
        answer: dict[str, Any] = await self._call("GET", "/stats", operation="read statistics")
        return answer

    async def logs(self, kind: str = "console") -> str:
        """Gives the guest's console, or with `output` what its main command printed."""
        path = await self._path("/logs?kind=" + segment(kind))
        async with translated(self._id, "read the log", not_found=NotFoundError):
            async with connection.streaming("GET", path, accept="text/plain") as response:
                return (await response.aread()).decode(errors="replace")

    # Its life.

    async def start(self, boot_timeout: float | None = None, *, on_progress: Callable[[dict[str, Any]], Any] | None = None) -> AsyncSmolVM:
        """Boots the VM; one that is paused goes on, and one that runs stays as it is."""
        path = await self._path("/start")
        progress = on_progress or self._on_progress
        try:
            values = self._secret_values()
            body = {"secret_values": values} if values else None
            answer = await connection.long("POST", path, body, on_progress=progress, limit=boot_timeout)
            self._info = VMInfo.from_wire(answer)
        except Refused as e:
            if e.code != "wrong_state":
                async with translated(self._id, "start the VM", not_found=VMNotFoundError):
                    raise
            await self._start_again(e)
        except OperationTimeoutError:
            raise OperationTimeoutError("start the VM", boot_timeout, remedy="give it more: start(boot_timeout=SECONDS)") from None
        return self

    def _secret_values(self) -> dict[str, str]:
        """Finds the values of the VM's secrets. What is missing of a VM that somebody else made, the server tells."""
        values: dict[str, str] = {}
        if self._config is not None:
            values = {name: s.resolve(name) for name, s in self._config.secrets.items() if name not in self._given}
        elif self._info is not None:
            for s in self._info.config.get("secrets") or []:
                kind, _, variable = str(s.get("source", "")).partition(":")
                if kind == "env" and variable in os.environ:
                    values[s["name"]] = os.environ[variable]
        return values | {name: value.get_secret_value() for name, value in self._given.items()}

    async def _start_again(self, refused: Refused) -> None:
        """Starts a VM that was not in the state for it: perhaps it runs, perhaps somebody else is starting it."""
        end = time.monotonic() + 300
        while True:
            status = await self.status
            if status is VMState.PAUSED:
                return await self.resume()
            if status is VMState.RUNNING:
                return None
            if status not in (VMState.STARTING, VMState.STOPPING) or time.monotonic() > end:
                async with translated(self._id, "start the VM", not_found=VMNotFoundError):
                    raise refused
            await _aio.sleep(0.1)

    async def stop(self, timeout: float | None = None) -> None:
        """Stops the VM; its disk stays. `timeout` is how long its services may take to end, 10 s if not given."""
        body = {} if timeout is None else {"kill": True} if timeout <= 0 else {"grace_ms": max(1, round(timeout * 1000))}
        limits = httpx.Timeout((timeout or 10) + 60, connect=10, pool=None)
        try:
            await self._call("POST", "/stop", body, operation="stop the VM", timeout=limits)
        except WrongStateError:
            if await self.status in _LIVE:
                raise

    async def pause(self) -> None:
        """Stops the VM's processors; its memory stays."""
        await self._call("POST", "/pause", operation="pause the VM")

    async def resume(self) -> None:
        """Lets a paused VM go on."""
        await self._call("POST", "/unpause", operation="resume the VM")

    async def delete(self) -> None:
        """Deletes the VM with its disk; one that runs is stopped first."""
        if not self._there:
            return
        path = f"/v1/sandboxes/{segment(self._id)}?force=true"
        _lease.release(self._id)
        async with translated(self._id, "delete the VM", not_found=VMNotFoundError):
            await connection.request("DELETE", path, timeout=httpx.Timeout(120, connect=10, pool=None))
        self._made = False

    async def set_ttl(self, seconds: float | None) -> None:
        """Has the VM stop after so many seconds from now; None lets it run."""
        await self._call("PUT", "/ttl", {"ttl_ms": round((seconds or 0) * 1000)}, operation="set the time to live")

    async def wait_for_ready(self, timeout: float = 60.0) -> None:
        """Waits until commands can be run; a VM that was never started is started."""
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            try:
                await self._exec(["true"], _wire.exec_request(["true"], timeout=max(left, 1.0)), None, None)
                return
            except (CommandExecutionUnavailableError, OperationTimeoutError) as e:
                if time.monotonic() > end:
                    raise OperationTimeoutError("wait until the VM is ready", timeout, cause=str(e)) from e
                if await self.status not in _LIVE:
                    raise
            await _aio.sleep(0.1)

    wait_for_ssh = wait_for_ready

    async def can_run_commands(self) -> bool:
        """Whether a command can be run now."""
        try:
            return await self.status is VMState.RUNNING
        except VMNotFoundError:
            return False

    # Commands.

    def add_callback(self, callback: Callback) -> None:
        """Has a callback hear of every command from now on."""
        self._callbacks.append(callback)

    async def run(
        self,
        command: str | Sequence[str],
        timeout: float | None = None,
        shell: str = "login",
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stdin: str | bytes | None = None,
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        check: bool = False,
    ) -> CommandResult:
        """Runs a command to its end. A VM that was never started is started first.

        A string is for a shell, a login shell (bash) unless `shell="raw"`; a list is a program and its arguments. `timeout` is in
        seconds from the command's start, 900 unless given here, to the constructor or in SMOLVM_RUN_TIMEOUT; when it passes, the
        command and all that it started are killed, and OperationTimeoutError has what it printed. `on_stdout` and `on_stderr` get
        the output as it comes. An exit code other than 0 is no error unless `check` says so.
        """
        seconds = _wire.run_timeout(timeout, self._timeout)
        body = _wire.exec_request(command, shell=shell, timeout=seconds, cwd=cwd, env=env, user=user)
        _wire.with_input(body, stdin)
        if self._callbacks:
            result = await self._run_heard(command, shell, seconds, body, on_stdout, on_stderr)
        else:
            result = await self._exec(command, body, on_stdout, on_stderr)
        if check and result.exit_code != 0:
            raise CommandFailedError(command if isinstance(command, str) else " ".join(command), result)
        return result

    async def _run_heard(
        self, command: str | Sequence[str], shell: str, seconds: float, body: dict[str, Any], on_stdout: Any, on_stderr: Any
    ) -> CommandResult:
        ctx = RunContext(await self._ready(), command, shell, seconds or None)
        for callback in self._callbacks:
            await _aio.call(callback.on_pre_run, ctx)
        try:
            ctx.result = await self._exec(command, body, on_stdout, on_stderr)
        except BaseException as e:
            ctx.error = e
            for callback in self._callbacks:
                await _aio.call(callback.on_run_error, ctx)
            raise
        for callback in self._callbacks:
            await _aio.call(callback.on_post_run, ctx)
        return ctx.result

    async def _exec(self, command: str | Sequence[str], body: dict[str, Any], on_stdout: Any, on_stderr: Any) -> CommandResult:
        vm_id = await self._ready()
        for attempt in (1, 2):
            try:
                if on_stdout is None and on_stderr is None:
                    wire = await self._exec_once(vm_id, body)
                    result = _wire.command_result(wire)
                else:
                    wire, result = await self._exec_streamed(vm_id, body, on_stdout, on_stderr)
                break
            except Refused as e:
                if not (e.code == "wrong_state" and attempt == 1 and await self.status is VMState.CREATED):
                    raise await self._unavailable(e) from None
                await self.start()
            except NetworkError as e:
                raise CommandExecutionUnavailableError(
                    vm_id, "the server went away while the command ran", "vm.list_processes() shows whether it still runs", cause=e.cause
                ) from e
        if wire.get("timed_out"):
            raise _wire.timed_out(command, body.get("timeout_ms", 0) / 1000, result)
        return result

    async def _exec_once(self, vm_id: str, body: dict[str, Any]) -> Any:
        if not self._exec_path:
            self._exec_path = f"/v1/sandboxes/{segment(vm_id)}/exec"
        milliseconds = body.get("timeout_ms")
        limits = httpx.Timeout(milliseconds / 1000 + 60 if milliseconds else None, connect=10.0, write=60.0, pool=None)
        return await connection.request("POST", self._exec_path, content=dumps(body), headers=JSON_HEADERS, timeout=limits)

    async def _exec_streamed(self, vm_id: str, body: dict[str, Any], on_stdout: Any, on_stderr: Any) -> tuple[Any, CommandResult]:
        stdout, stderr = _wire.Output(), _wire.Output()
        streams = {"stdout": (stdout, on_stdout), "stderr": (stderr, on_stderr)}
        events = connection.events("POST", f"/v1/sandboxes/{segment(vm_id)}/exec/stream", body)
        try:
            async for event, data in events:
                if event in streams:
                    output, callback = streams[event]
                    text = output.add(processes.decode(data["data"]))
                    if text:
                        await _aio.call(callback, text)
                elif event == "exit":
                    for output, callback in streams.values():
                        if text := output.add(b"", final=True):
                            await _aio.call(callback, text)
                    return data, _wire.streamed_result(data, stdout, stderr)
        finally:
            await events.aclose()  # type: ignore[attr-defined]
        raise NetworkError("the server ended its answer before the command had ended")

    async def _unavailable(self, refused: Refused) -> SmolVMError:
        """Makes an exception of a command's refusal: a VM that does not run, or that died, gives the reason."""
        if refused.code in ("wrong_state", "unavailable"):
            reason, remedy = str(refused.problem.get("detail")), refused.problem.get("remedy")
            with contextlib.suppress(SmolVMError, Refused):
                info = await self.refresh()
                if info.status not in _LIVE:
                    reason = f"the VM is in state {info.status}" if info.status in _FAILED else f"the VM is {info.status}"
                    if info.reason and info.reason != info.status.value:
                        reason += f": {info.reason}"
                    remedy = "vm.start()"
                elif info.status is VMState.PAUSED:
                    reason, remedy = "the VM is paused", "vm.resume()"
            return CommandExecutionUnavailableError(self._id, reason, remedy, cause=refused.problem.get("cause"))
        try:
            async with translated(self._id, "run the command", not_found=NotFoundError):
                raise refused
        except SmolVMError as e:
            return e

    async def process(
        self,
        command: str | Sequence[str],
        *,
        shell: str = "login",
        stdin: bool = False,
        tty: bool | tuple[int, int] = False,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout: float | None = None,
    ) -> AsyncProcess:
        """Starts a command and talks with it: `with vm.process("cat", stdin=True) as p`. It ends when the block does.

        `tty` gives it a terminal, True or its size as (rows, columns). There is no time limit unless `timeout` gives one.
        """
        vm_id = await self._started()
        seconds = 0.0 if timeout is None else _wire.run_timeout(timeout, None)
        body = _wire.exec_request(command, shell=shell, timeout=seconds, cwd=cwd, env=env, user=user)
        terminal = processes.tty_of(tty)
        if stdin or terminal:
            body["stdin"] = True
        if terminal:
            body["tty"] = terminal
        return await processes.begin(vm_id, body, seconds)

    async def spawn(
        self,
        command: str | Sequence[str],
        *,
        shell: str = "login",
        stdin: bool = False,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> str:
        """Starts a command in the background and gives its id, for `attach`, `wait_process` and `signal_process`."""
        body = _wire.exec_request(command, shell=shell, cwd=cwd, env=env, user=user)
        if stdin:
            body["stdin"] = True
        return await processes.background(await self._started(), body)

    async def attach(self, process_id: str, *, offset: int = 0, stdin: bool = True) -> AsyncProcess:
        """Joins a command that runs, and gives what is kept of its output from `offset` on. Leaving does not end it."""
        return await processes.join(await self._ready(), process_id, offset=offset, stdin=stdin)

    async def list_processes(self) -> list[ProcessInfo]:
        """Tells which commands run, and which ended not long ago."""
        answer = await self._call("GET", "/processes", operation="list processes")
        return [ProcessInfo.from_wire(p) for p in answer["processes"]]

    async def wait_process(self, process_id: str, timeout: float | None = None) -> int:
        """Waits for the end of a command and gives its exit code."""
        query = f"?timeout_ms={round(timeout * 1000)}" if timeout is not None else ""
        limits = httpx.Timeout(timeout + 60 if timeout is not None else None, connect=10, pool=None)
        path = f"/processes/{segment(process_id)}/wait{query}"
        try:
            answer = await self._call("POST", path, operation="wait for the command", timeout=limits)
        except OperationTimeoutError:
            raise OperationTimeoutError("wait for the command", timeout) from None
        return int(answer["exit_code"])

    async def signal_process(self, process_id: str, signal: str | int = "SIGTERM", *, group: bool = False) -> None:
        """Sends a signal to a command; `group` is for all that it started too."""
        await self._call(
            "POST", f"/processes/{segment(process_id)}/signal", {"signal": str(signal), "group": group}, operation="signal the command"
        )

    async def _started(self) -> str:
        """Gives the id of a VM, which is started if it never was."""
        vm_id = await self._ready()
        if self._info is None or self._info.status is VMState.CREATED:
            if (await self.refresh()).status is VMState.CREATED:
                await self.start()
        return vm_id

    # Its environment.

    async def set_env_vars(self, variables: Mapping[str, str], *, merge: bool = True) -> list[str]:
        """Sets variables of all commands from now on, and gives their names. Without `merge` they replace all others."""
        try:
            checked = check_env(variables)
        except ValueError as e:
            raise ValidationError(f"env_vars: {e}") from None
        await self._call("PATCH", "/env", {"set": checked, "replace": not merge}, operation="set variables")
        return sorted(checked)

    async def unset_env_vars(self, names: Iterable[str]) -> dict[str, str]:
        """Removes variables, and gives those that there were."""
        wanted = [names] if isinstance(names, str) else list(names)
        there = await self.list_env_vars()
        await self._call("PATCH", "/env", {"unset": wanted}, operation="remove variables")
        return {name: there[name] for name in wanted if name in there}

    async def list_env_vars(self) -> dict[str, str]:
        """Gives the variables of all commands, with their values."""
        answer = await self._call("GET", "/env?show=true", operation="list variables")
        return dict(answer["env"])

    async def set_secret(self, name: str, value: str) -> None:
        """Gives a secret of the VM another value. Requests get it from now on, and so do the next starts by this object."""
        vm_id = await self._ready()
        try:
            await connection.request("PATCH", f"/v1/sandboxes/{segment(vm_id)}/secrets", {"values": {name: value}})
        except Refused as e:
            if e.code != "wrong_state":  # else it does not run: the next start has it
                async with translated(vm_id, "set a secret", not_found=VMNotFoundError):
                    raise
        self._given[name] = SecretStr(value)

    async def list_secrets(self) -> list[dict[str, Any]]:
        """Tells the VM's secrets: names, hosts, sources. Nobody tells values."""
        answer = await self._call("GET", "/secrets", operation="list secrets")
        return list(answer["secrets"])

    # SSH and terminals.

    async def ssh_commands(self, *, ssh_user: str | None = None, key_path: str | Path | None = None) -> dict[str, str]:
        """Gives command lines that log in.

        `smolvm` needs no key. `local_port` is there once `expose_local(22)` was called, and needs a key that may log in
        (`ssh_key_path`, `ssh_public_key`).
        """
        vm_id = await self._ready()
        out: dict[str, str] = {}
        if (await connection.address()).local:
            out["smolvm"] = f"{_serve.binary()} ssh {vm_id}"
        key = key_path or self._ssh_key_path
        for port in await self.list_ports():
            if port.guest_port == 22:
                identity = f"-i {key} -o IdentitiesOnly=yes " if key else ""
                options = "-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/dev/null "
                out["local_port"] = f"ssh {identity}{options}-p {port.host_port} {ssh_user or self._ssh_user}@{port.address}"
        return out

    async def attach_shell(self) -> int:
        """Gives this process's terminal to a login shell in the VM, and gives its exit code."""
        vm_id = await self._started()
        if not (await connection.address()).local:
            raise HostError("attach_shell needs a server on this machine", remedy=f"there: smolvm shell {vm_id}")
        import subprocess

        return await _aio.run_blocking(subprocess.call, [_serve.binary(), "shell", vm_id])

    wait_for_shell = wait_for_ready
