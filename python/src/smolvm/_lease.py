"""Leases: what binds a VM to us on a server of another machine, where nobody can watch our process.

One thread renews all of them. Nobody renews what nobody registered here: after a fork the leases are the parent's.
"""

from __future__ import annotations

import json
import logging
import os
import threading

import httpx

from . import _serve

log = logging.getLogger("smolvm")

LEASE_MS = 60_000
EVERY = 20.0

_lock = threading.Lock()
_leases: dict[str, _serve.Address] = {}
_wake = threading.Event()
_thread: threading.Thread | None = None


def owner(address: _serve.Address) -> dict[str, object]:
    """How a VM is bound to us: to our process on this host, else by a lease."""
    if address.local:
        return {"owner": "client"}  # the process at the other end of the socket, which the kernel tells
    return {"owner": "lease", "lease_ms": LEASE_MS}


def hold(address: _serve.Address, vm_id: str) -> None:
    """Renews a VM's lease from now on."""
    global _thread
    if address.local:
        return
    with _lock:
        _leases[vm_id] = address
        if _thread is None:
            _thread = threading.Thread(target=_renew, name="smolvm-lease", daemon=True)
            _thread.start()


def release(vm_id: str) -> None:
    """Renews it no more."""
    with _lock:
        _leases.pop(vm_id, None)


def _renew() -> None:
    global _thread
    clients: dict[_serve.Address, httpx.Client] = {}
    while True:
        _wake.wait(EVERY)
        with _lock:
            now = dict(_leases)
            if not now:
                _thread = None
                break
        for vm_id, address in now.items():
            client = clients.get(address) or clients.setdefault(address, httpx.Client(headers={"Authorization": f"Bearer {address.token}"}))
            try:
                body = json.dumps({"owner": "lease", "lease_ms": LEASE_MS}).encode()
                answer = client.put(
                    f"{address.url}/v1/sandboxes/{vm_id}/owner", content=body, headers={"Content-Type": "application/json"}, timeout=15
                )
            except httpx.HTTPError as e:
                log.warning("the lease of VM %s was not renewed: %s", vm_id, e)
                continue
            if answer.status_code == 404:
                release(vm_id)
    for client in clients.values():
        client.close()


def _forked() -> None:
    global _lock, _thread
    _lock = threading.Lock()
    _thread = None
    _leases.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
