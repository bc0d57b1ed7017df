"""Tests without VMs talk with a double of the server, which the package starts as it starts the program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import smolvm
from smolvm._sync.client import connection

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def double_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = tmp_path_factory.mktemp("bin") / "smolvm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "double.py"} "$@"\n')
    program.chmod(0o755)
    return str(program)


class Double:
    def requests(self) -> list[tuple[str, str, object]]:
        return [tuple(r) for r in connection.request("GET", "/v1/double/requests") if "double" not in r[1]]

    def trouble(self, where: str, status: int, code: str, detail: str = "it failed", **more: str) -> None:
        """Has the next request "METHOD PATH-END" fail."""
        connection.request("POST", "/v1/double/trouble", {where: [status, code, detail, more]})


@pytest.fixture
def double(double_program: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SMOLVM_BIN", double_program)
    monkeypatch.delenv("SMOLVM_HOST", raising=False)
    monkeypatch.delenv("SMOLVM_RUN_TIMEOUT", raising=False)
    yield Double()
    smolvm.close_server()
