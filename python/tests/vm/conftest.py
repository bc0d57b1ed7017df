"""Tests with real VMs. script/test-python runs them; by hand: SMOLVM_VM_TESTS=1 and SMOLVM_BIN."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import smolvm
import standins
from smolvm import SmolVM, VMConfig

LONG = ("test_long_running_workspace", "dashboard")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(name in item.name for name in LONG))  # what takes minutes begins first
    for item in items:
        if "/vm/" in str(item.path) and os.environ.get("SMOLVM_VM_TESTS") != "1":
            item.add_marker(pytest.mark.skip(reason="boots VMs: script/test-python"))


@pytest.fixture(scope="session")
def shared() -> Iterator[SmolVM]:
    """A running VM that many tests use and leave as it was."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "one")
    with SmolVM(VMConfig(vm_id=f"py-shared-{worker}", memory=512, boot_timeout=standins.BOOT_TIMEOUT)) as vm:
        yield vm
    smolvm.close_server()


@pytest.fixture(scope="session")
def git_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[standins.Git]:
    with standins.Git(tmp_path_factory.mktemp("git")) as server:
        yield server
