"""Every example, as its reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import standins
from smolvm import SmolVM

EXAMPLES = Path(os.environ.get("SMOLVM_EXAMPLES") or Path(__file__).parents[3] / "examples")


def run(name: str, *args: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *args], env={**os.environ, **env}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_node_dashboard() -> None:
    out = run("node_dashboard")
    assert re.fullmatch(r"listening: http://127.0.0.1:\d+/\nTrue\n", out), out


def test_tool_calling() -> None:
    pytest.importorskip("anthropic")
    pytest.importorskip("openai")
    with standins.Model() as model:
        out = run("tool_calling_anthropic", ANTHROPIC_BASE_URL=model.url, ANTHROPIC_API_KEY="none")
        assert out == "I will calculate that.\n[VM] fibonacci 55\nThe tool said: fibonacci 55\n"
        out = run("tool_calling_openai", OPENAI_BASE_URL=model.url + "/v1", OPENAI_API_KEY="none")
        assert out == "[VM] fibonacci 55\nThe tool said: fibonacci 55\n"


def test_persistent_workspace(git_server: standins.Git) -> None:
    try:
        assert run("persistent_workspace", "create") == "example-workbench is made\n"
        git_server.supply(SmolVM.from_id("example-workbench"))
        run("persistent_workspace", "run", "git clone https://github.com/user/repo")
        run("persistent_workspace", "run", "cd repo && python3 analyze.py")
        SmolVM.from_id("example-workbench").stop()
        assert run("persistent_workspace", "run", "cat repo/analysis; test -e notes/created") == "42\n"
    finally:
        out = run("persistent_workspace", "delete")
    assert out == "deleted\n"
    assert run("persistent_workspace", "delete") == "it was gone already\n"


def test_many_workspaces() -> None:
    assert run("many_workspaces").splitlines() == [f"{i} {i}.txt" for i in range(1, 11)]


def test_asynchronous() -> None:
    assert run("asynchronous") == ("['0', '1', '2', '3', '4']\nstdout b'got one\\n'\nstdout b'got two\\n'\nexit code 0\nsleeping: 0\n")


def test_error_handling() -> None:
    out = run("error_handling").splitlines()
    assert out[0].startswith("refused: VMConfig: mem_size_mb: there is no such field: did you mean mem_size_mib?")
    assert out[1:4] == [
        "not found: no-such-vm",
        "exit code 2: ls: cannot access '/nowhere': No such file or directory",
        "failed: 2",
    ]
    assert out[4:] == [
        "timed out after 1 s, having printed 'begun\\n'",
        "no command: the VM is stopped; what helps: vm.start()",
        "ValidationError: host_port: 0 is not within 1 to 65535",
    ]


def test_secret_variables() -> None:
    out = run("secret_variables", SERVICE_KEY="hunter2").splitlines()
    assert "hunter2" not in "".join(out)
    assert out[0] == "a key of 7 characters"
    assert out[1].startswith("shown: {'SERVICE_KEY': ")
    assert out[2:] == ["afterwards: nothing", "refused: VMConfig: env_vars: OTHER_KEY is None: is the host's variable not set?"]


def test_hidden_secrets() -> None:
    out = run("hidden_secrets", SERVICE_KEY="sk-only-for-this-test-0123456789").splitlines()
    assert "only-for-this-test" not in "".join(out)
    assert out == [
        "api.service.example answers: welcome",
        "elsewhere.example is refused: 403",
        "the key here begins with sk- and opens nothing",
        "the service saw the key: True",
        "and the next one: True",
    ]


def test_limits() -> None:
    out = dict(line.split(": ", 1) for line in run("limits").splitlines())
    assert out["memory"] in ("exit code 137", "exit code 1")
    assert "No space left" in out["disk"]
    assert out["processes"] == "refused"
    assert out["network"] == "exit code 6"
    assert out["time"] == "stopped after 1 s"


def test_network() -> None:
    out = run("network").splitlines()
    assert out[0] == "pypi.org: 200"
    assert "Could not resolve" in out[1]
    assert out[2] == "metadata: refused"
    assert any(line.startswith("allow tcp pypi.org 443") for line in out), out
    assert any(line.startswith("deny dns example.com") for line in out), out
    assert out[-1] == "afterwards: refused"


def test_ssh_login() -> None:
    out = run("ssh_login").splitlines()
    assert out[1:3] == [out[-1].removeprefix("the VM is ").replace("_", "-"), "root"]
    assert 1800 < int(out[3]) <= 2048
