"""Ports and network of a VM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import httpx

from .._wire import GUEST_IP
from ..exceptions import AlreadyExistsError, NotFoundError, OperationTimeoutError, SmolVMError, ValidationError
from ..models import NetRecord, NetworkPolicy, Port, validate_policy
from .base import AsyncBase
from .client import connection, translated


def _port(name: str, value: Any, low: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= 65535:
        raise ValidationError(f"{name}: {value!r} is not within {low} to 65535")
    return value


class AsyncNetwork(AsyncBase):
    """What a VM can do with ports and its network."""

    async def get_ip(self) -> str:
        """The guest's own address. It is the same in every VM, each in a network of its own: `expose_local` makes a way in."""
        await self._ready()
        return GUEST_IP

    async def expose_local(self, guest_port: int, host_port: int | None = None, *, address: str = "127.0.0.1") -> int:
        """Publishes a port of the VM on this host and gives the host's port. Without `host_port` it is any that is free.

        It may be called before something listens in the guest. A port that is taken is an error; one that this VM has already is not.
        """
        body: dict[str, Any] = {"guest_port": _port("guest_port", guest_port), "address": address}
        if host_port is not None:
            body["host_port"] = _port("host_port", host_port)
        try:
            answer = await self._call("POST", "/ports", body, operation=f"expose port {guest_port}")
        except (AlreadyExistsError, ValidationError):
            for port in await self.list_ports():
                if host_port is not None and (port.guest_port, port.host_port, port.address) == (guest_port, host_port, address):
                    return host_port
            raise
        return int(answer["host_port"])

    async def unexpose_local(self, host_port: int, guest_port: int, *, address: str = "127.0.0.1") -> None:
        """Withdraws a port of this host."""
        query = f"?guest_port={_port('guest_port', guest_port)}&host_port={_port('host_port', host_port)}&address={address}"
        await self._call("DELETE", "/ports" + query, operation=f"withdraw port {host_port}")

    async def list_ports(self) -> list[Port]:
        """Tells what is published."""
        answer = await self._call("GET", "/ports", operation="list ports")
        return [Port(guest_port=p["guest_port"], host_port=p["host_port"], address=p["address"]) for p in answer["ports"]]

    async def wait_for_port(self, port: int, timeout: float = 30.0) -> None:
        """Waits until something in the VM listens on a port."""
        if not timeout > 0:
            raise ValidationError(f"timeout: {timeout!r} is no positive number of seconds")
        body = {"port": _port("port", port), "timeout_ms": round(timeout * 1000)}
        try:
            limits = httpx.Timeout(timeout + 60, connect=10, pool=None)
            await self._call("POST", "/ports/wait", body, operation=f"wait for port {port}", timeout=limits)
        except OperationTimeoutError:
            raise OperationTimeoutError(f"wait for port {port}", timeout, remedy="in the VM: ss -ltn") from None

    async def wait_for_guest_tcp_ports(self, ports: Iterable[int], *, timeout: float = 30.0) -> bool:
        """Waits until something listens on all of these ports, and tells whether that came true."""
        try:
            for port in ports:
                await self.wait_for_port(port, timeout)
        except OperationTimeoutError:
            return False
        return True

    async def get_policy(self) -> NetworkPolicy:
        """Tells what the VM may reach."""
        answer = await self._call("GET", "/network", operation="read the policy")
        return NetworkPolicy(**{k: v for k, v in answer.items() if k in NetworkPolicy.model_fields and v is not None})

    async def set_policy(self, policy: NetworkPolicy | Mapping[str, Any] | str) -> NetworkPolicy:
        """Changes what the VM may reach, also while it runs; connections that are no longer allowed end."""
        await self._call("PUT", "/network", validate_policy(policy).to_wire(), operation="set the policy")
        return await self.get_policy()

    async def network_log(self) -> list[NetRecord]:
        """Tells every name that was asked for, every connection and every request that was seen, allowed or not."""
        return [record async for record in self._records("false")]

    async def follow_network(self) -> AsyncIterator[NetRecord]:
        """Gives the records of the network, those of the past and those that come."""
        async for record in self._records("true"):
            yield record

    async def _records(self, follow: str) -> AsyncIterator[NetRecord]:
        path = await self._path("/network/log?follow=" + follow)
        async with translated(await self._ready(), "read the network's log", not_found=NotFoundError):
            async for event, data in connection.events("GET", path):
                if event == "record":
                    yield NetRecord.from_wire(data)

    async def network_stats(self) -> dict[str, Any]:
        """Adds the records up."""
        answer: dict[str, Any] = await self._call("GET", "/network/stats", operation="read the network's statistics")
        return answer


__all__ = ["AsyncNetwork", "SmolVMError"]
