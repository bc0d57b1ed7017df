"""The values that SmolVM's calls take and give: configurations, policies, results."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from .exceptions import SmolVMError, ValidationError

__all__ = [
    "SSH_BOOT_ARGS",
    "Callback",
    "CommandResult",
    "FileInfo",
    "InternetSettings",
    "NetRecord",
    "NetworkPolicy",
    "NetworkRule",
    "Port",
    "ProcessInfo",
    "RunContext",
    "Secret",
    "VMConfig",
    "VMInfo",
    "VMState",
]

SSH_BOOT_ARGS = "console=ttyS0 reboot=k panic=1 pci=off root=/dev/vda rw init=/init"
"""Accepted and without effect: SmolVM boots its own kernel in its own way. Other arguments than these are appended."""


class VMState(str, Enum):
    """Where a VM is in its life."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    HIBERNATED = "hibernated"
    DELETING = "deleting"
    ERROR = "error"
    BROKEN = "broken"

    def __str__(self) -> str:
        return self.value


def _field_name(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "value"


def _refusal(model: type[BaseModel], error: pydantic.ValidationError, known: Sequence[str], absent: Mapping[str, str]) -> ValidationError:
    """Tells each wrong field in a line of its own, without the value, which may be a secret."""
    lines, details = [], []
    for e in error.errors(include_url=False, include_input=False, include_context=True):
        name = _field_name(e["loc"])
        if e["type"] == "extra_forbidden":
            if name in absent:
                message = absent[name]
            else:
                import difflib  # only who errs waits for it

                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                message = "there is no such field" + (f": did you mean {near[0]}?" if near else "")
        else:
            message = str(e["msg"]).removeprefix("Value error, ")
        lines.append(f"{name}: {message}")
        details.append({"location": name, "message": message})
    return ValidationError(f"{model.__name__}: " + "; ".join(lines), {"errors": details})


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, populate_by_name=True, defer_build=True)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except pydantic.ValidationError as e:
            names = [*type(self).model_fields, *_ALIASES.get(type(self).__name__, {})]
            raise _refusal(type(self), e, names, _ABSENT if type(self).__name__ == "VMConfig" else {}) from None


# Names of the upstream package, and what they are here.
_ALIASES: dict[str, dict[str, str]] = {
    "VMConfig": {
        "mem_size_mib": "memory",
        "memory_mib": "memory",
        "cpus": "vcpu_count",
        "vcpus": "vcpu_count",
        "disk_size": "disk_size_mib",
        "disk_mib": "disk_size_mib",
        "id": "vm_id",
        "name": "vm_id",
        "env": "env_vars",
        "engine": "backend",
        "network": "policy",
        "port_forwards": "ports",
        "max_procs": "max_processes",
    }
}
_ABSENT = {
    "workspace_mounts": "directories of the host are not mounted: copy them with vm.upload_file or `smolvm cp`",
    "extra_drives": "there are no further drives: disk_size_mib makes the one disk as large as you like",
    "initrd_path": "the initramfs is SmolVM's own",
    "guest_os": "guests are Debian: image= chooses another file system",
    "qemu_machine": "the machine is always microvm",
    "comm_channel": "commands always go over the agent's link",
    "rootfs_format": "file systems are raw ext4",
    "network_rate_limit_mbps": 'use policy={"mode": "open", "rate_kbps": ...}',
    "vsock": "the agent's link is SmolVM's own",
    "ssh_password": "there are no passwords: use ssh_public_key or ssh_key_path",
}


# What numbers may be. (pydantic's own constraints would have every program import annotated-types.)
_RANGES: dict[str, tuple[float, float]] = {
    "vcpu_count": (1, 32),
    "memory": (128, 1 << 20),
    "disk_size_mib": (256, 256 * 1024),
    "boot_timeout": (0.001, 1e6),
    "ttl": (0, 1e9),
    "idle": (0, 1e9),
    "cpu_share": (1, 3200),
    "max_processes": (16, 1 << 15),
    "disk_rate_mib": (1, 1 << 20),
    "disk_iops": (10, 10_000_000),
    "guest_port": (1, 65535),
    "host_port": (0, 65535),
}


def _in_range(value: float | None, info: pydantic.ValidationInfo) -> float | None:
    low, high = _RANGES[str(info.field_name)]
    if value is not None and not low <= value <= high:
        raise ValueError(
            f"{value:g} is not within {low:g} to {high:g}" if isinstance(value, float) else f"{value} is not within {low} to {high}"
        )
    return value


def _split_globs(text: str) -> list[str]:
    """Cuts a list at its commas, but for those in braces and behind a backslash. What is no glob the server refuses."""
    out, depth, escaped = [""], 0, False
    for c in text:
        if c == "," and not depth and not escaped:
            out.append("")
            continue
        out[-1] += c
        if not escaped:
            depth += {"{": 1, "}": -1}.get(c, 0)
        escaped = c == "\\" and not escaped
    return out


class NetworkRule(_Model):
    """Allows or denies what goes to a name or to a range of addresses."""

    action: Literal["allow", "deny"]
    host: str | None = None
    """A name, `*.example.com` for all names below it, or `*` for all names."""
    cidr: str | None = None
    """A range of addresses, or one address."""
    ports: list[str] | None = None
    """Numbers (`"443"`) and ranges (`"8000-8100"`); none means all."""
    proto: Literal["tcp", "udp"] | None = None
    methods: list[str] | None = None
    """Methods of HTTP, upper case; none means all. With these, `paths` or a bound of responses, a rule is for requests only."""
    paths: list[str] | None = None
    """Globs for the decoded path, such as `/repos/**`; none means all."""
    opaque: bool | None = None
    """Leaves the connections closed: no request is seen."""
    max_response_kb: int | None = None
    """How much a response's body may have."""
    response_kbps: int | None = None
    """How fast a response's body may come."""

    @classmethod
    def parse(cls, action: Literal["allow", "deny"], text: str) -> NetworkRule:
        """Reads a rule as the command line has it: HOST[:PORTS][/PROTO][=METHODS[:PATHS]], or =opaque."""
        target, asks, requests = text.partition("=")
        proto = None
        if m := re.fullmatch(r"(.*)/(tcp|udp)", target):
            target, proto = m.group(1), m.group(2)
        ports: list[str] | None = None
        if m := re.fullmatch(r"\[([^\]]*)\]:(.+)", target):
            target, ports = m.group(1), m.group(2).split(",")
        elif target.count(":") == 1:
            target, _, tail = target.partition(":")
            ports = tail.split(",")
        address = re.fullmatch(r"[0-9.]+", target) or ":" in target or "/" in target
        about: dict[str, Any] = {}
        if requests == "opaque":
            about["opaque"] = True
        elif asks:
            methods, given, paths = requests.partition(":")
            if methods != "*" or not given:
                about["methods"] = methods.split(",")
            if given:
                about["paths"] = _split_globs(paths)
        where = {"cidr": target} if address else {"host": target}
        return cls(action=action, **where, ports=ports, proto=proto, **about)  # type: ignore[arg-type]


class NetworkPolicy(_Model):
    """What a VM may reach: `open` is the public internet, `allow` what rules allow, `none` nothing."""

    mode: Literal["open", "none", "allow"] = "open"
    rules: list[NetworkRule] = Field(default_factory=list)
    """The first that matches decides."""
    dns: list[str] = Field(default_factory=list)
    """Resolvers, as ADDRESS or ADDRESS:PORT; none means those of this host."""
    rate_kbps: int = 0
    max_conns: int = 0
    max_new_per_sec: int = 0
    max_dns_per_sec: int = 0

    @classmethod
    def allow(cls, *targets: str) -> NetworkPolicy:
        """Allows only these: `NetworkPolicy.allow("pypi.org:443", "files.pythonhosted.org:443")`."""
        return cls(mode="allow", rules=[NetworkRule.parse("allow", t) for t in targets])

    @classmethod
    def deny(cls, *targets: str) -> NetworkPolicy:
        """Allows the public internet but these."""
        return cls(mode="open", rules=[NetworkRule.parse("deny", t) for t in targets])

    @classmethod
    def of(cls, value: NetworkPolicy | Mapping[str, Any] | str) -> NetworkPolicy:
        """Reads a policy, a mapping, or the name of a mode."""
        if isinstance(value, NetworkPolicy):
            return value
        if isinstance(value, str):
            return cls(mode=value)  # type: ignore[arg-type]
        return cls(**dict(value))

    def to_wire(self) -> dict[str, Any]:
        """The policy as the HTTP API has it."""
        return self.model_dump(exclude_none=True, exclude_defaults=False)


class InternetSettings(_Model):
    """What the upstream package calls a policy: names that may be reached on every TCP port. `["*"]` means all.

    With `allowed_http_methods`, they may be reached by HTTP and HTTPS with these methods, and by nothing else.
    """

    allowed_domains: list[str] = Field(default_factory=lambda: ["*"])
    allowed_http_methods: list[str] = Field(default_factory=lambda: ["*"])

    def policy(self) -> NetworkPolicy:
        """The same as a policy."""
        methods = None if "*" in self.allowed_http_methods else [m.upper() for m in self.allowed_http_methods]
        if "*" in self.allowed_domains:
            names = ["*"]
            if methods is None:
                return NetworkPolicy(mode="open")
        else:
            names = [re.sub(r"^[a-z]+://", "", d.lower()).split("/")[0].split(":")[0] for d in self.allowed_domains]
        return NetworkPolicy(mode="allow", rules=[NetworkRule(action="allow", host=n, methods=methods) for n in names])


class Port(_Model):
    """A TCP port of a VM that is published on this host."""

    guest_port: int
    host_port: int = 0
    """0: any that is free."""
    address: str = "127.0.0.1"

    _ranges = pydantic.field_validator("guest_port", "host_port")(_in_range)


class Secret(_Model):
    """A value that commands in a VM use without having it: their variable holds a placeholder.

    The VM's gateway puts the value into the headers of requests over TLS to `hosts`, and nothing of it enters the VM.
    """

    hosts: list[str]
    """Who may get it: names, and `*.example.com` for all names below one. A string is one host."""
    value: pydantic.SecretStr | None = None
    """8 to 8192 bytes. Left out: it is found at `source` when the VM is made, and at each start."""
    source: str | None = None
    """`env:VARIABLE` of this process; left out as well as `value`: the variable of the secret's own name."""
    prefix: str | None = None
    """What the placeholder begins with, for programs that look at that: `sk-`."""
    query: bool = False
    """Lets the value be put into the query of a URL too, which servers like to log."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            hosts: Sequence[str] | str,
            value: str | pydantic.SecretStr | None = None,
            source: str | None = None,
            prefix: str | None = None,
            query: bool = False,
        ) -> None: ...

    @pydantic.field_validator("hosts", mode="before")
    @classmethod
    def _hosts(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @pydantic.field_validator("source")
    @classmethod
    def _source(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError("it is not env:VARIABLE: find a value that is elsewhere yourself, and give it as value=")
        return value

    @pydantic.model_validator(mode="after")
    def _one(self) -> Secret:
        if self.value is not None and self.source is not None:
            raise ValueError("value and source say the same in two ways: give one")
        return self

    def source_of(self, name: str) -> str | None:
        """Where the value of the secret `name` is found; None where it is given."""
        return None if self.value is not None else self.source or f"env:{name}"

    def resolve(self, name: str) -> str:
        """Gives the value of the secret `name`."""
        if self.value is not None:
            return self.value.get_secret_value()
        variable = (self.source_of(name) or "").removeprefix("env:")
        try:
            return os.environ[variable]
        except KeyError:
            raise ValidationError(f"secret {name}: its source env:{variable} is missing: the variable is not set in this process") from None


class VMConfig(_Model):
    """What a VM is made of. Every field may be left out; unknown ones are refused.

    `mem_size_mib` is another name of `memory`, as are `cpus` of `vcpu_count` and `disk_size` of `disk_size_mib`.
    """

    vm_id: str | None = None
    """1 to 63 characters of a-z, 0-9, `_` and `-`. Left out: a name is made up."""
    vcpu_count: int | None = None
    memory: int | None = None
    """MiB; default 1024."""
    disk_size_mib: int | None = None
    """Of the writable disk; it is sparse. Default: the size that the image was built with, else 8192."""
    image: str | None = None
    kernel_path: Path | None = None
    rootfs_path: Path | None = None
    boot_args: str | None = None
    """Appended to the kernel's command line; what is SmolVM's own there is dropped."""
    env_vars: dict[str, str] = Field(default_factory=dict)
    """Variables of every command in the VM and of the services that it starts."""
    secrets: dict[str, Secret] = Field(default_factory=dict)
    """Variables whose values stay outside of the VM. A string or a list in place of a `Secret` are its hosts."""
    ssh_public_key: str | None = None
    """The text of a public key that may log in as root."""
    policy: NetworkPolicy | None = None
    """What the VM may reach; left out: the public internet, nothing private."""
    internet_settings: InternetSettings | None = None
    ports: list[Port] = Field(default_factory=list)
    """Published from the first start on."""
    user: str | None = None
    """Runs commands that name no user; default root."""
    workdir: str | None = None
    """Where commands run that name no directory; default: the user's home."""
    backend: str | None = None
    """`firecracker`, `qemu` or `auto`."""
    require_accel: bool = False
    """Refuses emulation, which is no security boundary."""
    boot_timeout: float | None = None
    """Seconds."""
    ttl: float | None = None
    """Seconds after which a running VM is stopped."""
    idle: float | None = None
    """Seconds without a request after which `idle_action` is done."""
    idle_action: Literal["stop", "pause", "rm"] | None = None
    cpu_share: int | None = None
    """How much the VM may use of this host's processors, in percent of one."""
    max_processes: int | None = None
    disk_rate_mib: int | None = None
    disk_iops: int | None = None
    no_host_cas: bool = False
    """Keeps the certificate authorities that this host's administrator added out of the guest."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            vm_id: str | None = None,
            vcpu_count: int | None = None,
            memory: int | None = None,
            mem_size_mib: int | None = None,
            disk_size_mib: int | None = None,
            disk_size: int | None = None,
            cpus: int | None = None,
            image: str | None = None,
            kernel_path: str | Path | None = None,
            rootfs_path: str | Path | None = None,
            boot_args: str | None = None,
            env_vars: Mapping[str, str | None] | None = None,
            secrets: Mapping[str, Secret | Mapping[str, Any] | Sequence[str] | str] | None = None,
            ssh_public_key: str | None = None,
            policy: NetworkPolicy | Mapping[str, Any] | str | None = None,
            internet_settings: InternetSettings | Mapping[str, Any] | None = None,
            ports: Sequence[Port | Mapping[str, Any]] = (),
            user: str | None = None,
            workdir: str | None = None,
            backend: str | None = None,
            require_accel: bool = False,
            boot_timeout: float | None = None,
            ttl: float | None = None,
            idle: float | None = None,
            idle_action: Literal["stop", "pause", "rm"] | None = None,
            cpu_share: int | None = None,
            max_processes: int | None = None,
            disk_rate_mib: int | None = None,
            disk_iops: int | None = None,
            no_host_cas: bool = False,
        ) -> None: ...

    @pydantic.model_validator(mode="before")
    @classmethod
    def _names(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        out = dict(data)
        for other, name in _ALIASES["VMConfig"].items():
            if other not in out:
                continue
            value = out.pop(other)
            if value is None:
                continue
            if out.get(name) is not None and out[name] != value:
                raise ValueError(f"{other} and {name} are the same, and you gave both")
            out[name] = value
        if out.get("policy") is not None and out.get("internet_settings") is not None:
            raise ValueError("policy and internet_settings say the same in two ways: give one")
        if out.get("env_vars", ...) is None:
            del out["env_vars"]
        if out.get("secrets", ...) is None:
            del out["secrets"]
        return out

    @pydantic.field_validator("policy", mode="before")
    @classmethod
    def _policy(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    _ranges = pydantic.field_validator(
        "vcpu_count",
        "memory",
        "disk_size_mib",
        "boot_timeout",
        "ttl",
        "idle",
        "cpu_share",
        "max_processes",
        "disk_rate_mib",
        "disk_iops",
    )(_in_range)

    @pydantic.field_validator("vm_id")
    @classmethod
    def _id(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", value):
            raise ValueError(f"{value!r} is not 1 to 63 characters of a-z, 0-9, _ and -, with a letter or digit at both ends")
        return value

    @pydantic.field_validator("env_vars", mode="before")
    @classmethod
    def _env(cls, value: Any) -> Any:
        return check_env(value) if isinstance(value, Mapping) else value

    @pydantic.field_validator("secrets", mode="before")
    @classmethod
    def _secrets(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: {"hosts": s} if isinstance(s, (str, list, tuple)) else s for name, s in value.items()}

    @pydantic.field_validator("boot_args")
    @classmethod
    def _args(cls, value: str | None) -> str | None:
        if value is not None and len(value.encode()) > 2048:
            raise ValueError("more than 2048 bytes")
        return value

    @pydantic.field_validator("workdir")
    @classmethod
    def _workdir(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("/"):
            raise ValueError(f"{value!r} is not absolute")
        return value

    @property
    def mem_size_mib(self) -> int | None:
        """Another name of `memory`."""
        return self.memory

    def to_wire(self) -> dict[str, Any]:
        """The configuration as the HTTP API has it."""
        wire: dict[str, Any] = {}
        for name, key in _WIRE.items():
            value = getattr(self, name)
            if value not in (None, "", False, {}):
                wire[key] = str(Path(value).absolute()) if isinstance(value, Path) else value
        for name, key in (("boot_timeout", "boot_timeout_ms"), ("ttl", "ttl_ms"), ("idle", "idle_ms")):
            if (seconds := getattr(self, name)) is not None:
                wire[key] = round(seconds * 1000)
        policy = self.policy or (self.internet_settings.policy() if self.internet_settings else None)
        if policy is not None:
            wire["network"] = policy.to_wire()
        if self.ports:
            wire["ports"] = [p.model_dump() for p in self.ports]
        if self.ssh_public_key:
            wire["authorized_keys"] = [self.ssh_public_key.strip()]
        if self.secrets:
            wire["secrets"] = [
                {"name": n, **s.model_dump(include={"hosts", "prefix", "query"}, exclude_none=True)} for n, s in self.secrets.items()
            ]
        return wire


_WIRE = {
    "vm_id": "id",
    "vcpu_count": "cpus",
    "memory": "memory_mib",
    "disk_size_mib": "disk_mib",
    "image": "image",
    "kernel_path": "kernel_path",
    "rootfs_path": "rootfs_path",
    "boot_args": "boot_args",
    "env_vars": "env",
    "user": "user",
    "workdir": "workdir",
    "backend": "engine",
    "require_accel": "require_accel",
    "idle_action": "idle_action",
    "cpu_share": "cpu_share",
    "max_processes": "max_processes",
    "disk_rate_mib": "disk_rate_mib",
    "disk_iops": "disk_iops",
    "no_host_cas": "no_host_cas",
}


def check_env(env: Mapping[str, Any]) -> dict[str, str]:
    """Refuses what is no environment, naming the variable and never its value."""
    out: dict[str, str] = {}
    for key, value in env.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise ValueError(f"{key!r} is not a variable's name")
        if value is None:
            raise ValueError(f"{key} is None: is the host's variable not set?")
        if not isinstance(value, str):
            raise ValueError(f"{key} is of type {type(value).__name__}, not a string")
        if "\0" in value:
            raise ValueError(f"{key} contains a NUL byte")
        out[key] = value
    return out


class VMInfo(BaseModel):
    """What a VM is, as the server tells it."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    vm_id: str
    status: VMState
    reason: str = ""
    """Why it is in this state."""
    owner: str = "keep"
    config: dict[str, Any] = Field(default_factory=dict)
    engine: str = ""
    accelerator: str = ""
    pid: int = 0
    """Of the monitor, 0 when it does not run."""
    ports: list[dict[str, Any]] = Field(default_factory=list)
    network: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> VMInfo:
        """Reads a VM as the HTTP API has it."""
        rest = {k: v for k, v in wire.items() if k not in ("id", "state", "vmm_pid") and v is not None}
        return cls(vm_id=wire["id"], status=VMState(wire["state"]), pid=wire.get("vmm_pid") or 0, **rest)


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, and what it printed."""

    exit_code: int
    """The command's own; 128+n when signal n ended it."""
    stdout: str = ""
    stderr: str = ""
    duration: float = 0.0
    """Seconds from its start to its end."""
    truncated: bool = False
    """More was printed than was kept."""

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.exit_code == 0

    @property
    def output(self) -> str:
        """What it printed, without white space around it."""
        return self.stdout.strip()


@dataclass(frozen=True)
class ProcessInfo:
    """A command that was started in a VM."""

    process_id: str
    pid: int
    command: str = ""
    user: str = ""
    running: bool = True
    exit_code: int | None = None
    output_bytes: int = 0

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> ProcessInfo:
        """Reads a process as the HTTP API has it."""
        result = wire.get("result")
        return cls(
            wire["exec_id"],
            wire.get("pid", 0),
            wire.get("command", ""),
            wire.get("user", ""),
            result is None,
            result["exit_code"] if result else None,
            wire.get("output_bytes", 0),
        )


@dataclass(frozen=True)
class FileInfo:
    """A file in a VM."""

    name: str
    path: str
    type: str
    """file, dir, symlink, fifo, socket, char or block."""
    size: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mod_time: str = ""
    target: str = ""

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> FileInfo:
        """Reads a file's facts as the HTTP API has them."""
        return cls(**{k: v for k, v in wire.items() if k in cls.__dataclass_fields__})


@dataclass(frozen=True)
class NetRecord:
    """A question of DNS, a connection or a request of a VM, and whether it was allowed."""

    time: str
    kind: str
    """dns, tcp, udp, http, icmp, frame, port or dropped."""
    verdict: str = ""
    """allow or deny."""
    name: str = ""
    addr: str = ""
    port: int = 0
    proto: str = ""
    qtype: str = ""
    """Of a question of DNS: A, AAAA, TXT, …"""
    rule: str = ""
    reason: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    duration_ms: int = 0
    method: str = ""
    """Of a request, like those that follow."""
    path: str = ""
    """Decoded, without the query."""
    status: int = 0
    secrets: list[str] = field(default_factory=list)
    """The names of the secrets that were put into it."""
    http_version: str = ""
    """What it came by: HTTP/1.1, HTTP/2."""
    count: int = 0
    """How many a "dropped" record stands for, or one about frames."""

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> NetRecord:
        """Reads a record as the HTTP API has it."""
        return cls(**{k: v for k, v in wire.items() if k in cls.__dataclass_fields__})


@dataclass
class RunContext:
    """What a callback hears of a command."""

    vm_id: str
    command: str | Sequence[str]
    shell: str
    timeout: float | None
    result: CommandResult | None = None
    error: BaseException | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Callback:
    """Hears of every command of a VM: override what you need, and give it to `vm.add_callback`.

    `on_pre_run` forbids a command by raising; what the others raise reaches the caller too.
    """

    def on_pre_run(self, ctx: RunContext) -> None:
        """Is called before a command starts."""

    def on_post_run(self, ctx: RunContext) -> None:
        """Is called after a command ended, whatever its exit code."""

    def on_run_error(self, ctx: RunContext) -> None:
        """Is called when a command could not be run to its end."""


def validate_policy(value: NetworkPolicy | Mapping[str, Any] | str) -> NetworkPolicy:
    """Reads a policy and tells what is wrong with it."""
    try:
        return NetworkPolicy.of(value)
    except SmolVMError:
        raise
    except (TypeError, ValueError) as e:
        raise ValidationError(f"policy: {e}") from None
