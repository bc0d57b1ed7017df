"""Every snippet of the user's page, as it is written there.

The page is not part of this repository: it is looked for at SMOLVM_PAGE, and in shared/seed beside the clone. Without it these tests
skip, and fail where CI says that everything must be there.
Supplied is only what the page leaves out (`public_key`, `os`, `vm`, the import of VMState), and what cannot be reached (see standins).
Under emulation explicit timeouts are raised.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import smolvm
import standins
from smolvm import Callback, CommandResult, SmolVM, VMConfig, VMNotFoundError, VMState
from smolvm.utils import ensure_ssh_key

DIGEST = "d73ef2050a17b05e0073ce9785ed23966f2b5aa09dadc1978444ba58f791b406"

# The first and the last line of each snippet.
SNIPPETS = {
    "tool": (33, 88),
    "workspace": (97, 123),
    "tasks": (128, 145),
    "end": (150, 153),
    "browser": (158, 218),
    "dashboard": (223, 300),
    "ephemeral": (306, 311),
    "limits": (315, 321),
    "timeout": (325, 328),
    "secret": (332, 342),
    "errors": (350, 382),
    "tenants": (387, 408),
}


def lines() -> list[str]:
    top = Path(__file__).resolve().parents[3]
    places = [Path(os.environ["SMOLVM_PAGE"])] if "SMOLVM_PAGE" in os.environ else []
    for seed in (top.parent / "shared" / "seed", top.parent.parent / "shared" / "seed"):
        places += sorted(seed.glob("*.txt"))
    for place in places:
        if place.is_file():
            data = place.read_bytes()
            assert hashlib.sha256(data).hexdigest() == DIGEST, f"{place} is not the page whose line numbers are here"
            return data.decode().split("\n")
    if os.environ.get("CI") == "true":
        pytest.fail("the user's page is not here: SMOLVM_PAGE names it")
    pytest.skip("the user's page is not here: SMOLVM_PAGE names it")


class Recorder(Callback):
    def __init__(self) -> None:
        self.results: list[tuple[str, CommandResult]] = []

    def on_post_run(self, ctx: smolvm.RunContext) -> None:
        assert ctx.result is not None
        self.results.append((str(ctx.command), ctx.result))

    def of(self, part: str) -> CommandResult:
        return next(result for command, result in self.results if part in command)


class Page:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines = lines()
        self.recorder = Recorder()
        self.supply: Callable[[SmolVM], None] = lambda vm: None
        self.timeouts = 10.0
        self.ids: list[str] = []
        start, run = SmolVM.start, SmolVM.run

        def started(vm: SmolVM, *args: Any, **options: Any) -> SmolVM:
            start(vm, *args, **options)
            self.ids.append(vm.vm_id)
            self.supply(vm)
            if self.recorder not in vm._callbacks:
                vm.add_callback(self.recorder)
            return vm

        def patient(vm: SmolVM, command: Any, timeout: float | None = None, *args: Any, **options: Any) -> CommandResult:
            result = run(vm, command, timeout * self.timeouts if timeout else None, *args, **options)
            if "install selenium" in str(command):  # whose own wait for its driver is an explicit timeout too
                where = "/usr/local/lib/python3*/dist-packages/selenium/webdriver/chromium/remote_connection.py"
                run(vm, f"sed -i s/timeout=120/timeout=1200/ {where}", check=True)
            return result

        monkeypatch.setattr(SmolVM, "start", started)
        monkeypatch.setattr(SmolVM, "run", patient)

    def run(self, name: str, **supplied: Any) -> dict[str, Any]:
        namespace = {"__name__": "page", **supplied}
        first, last = SNIPPETS[name]
        exec(compile("\n".join(self.lines[first - 1 : last]), f"the page, {name}", "exec"), namespace)
        return namespace


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(monkeypatch)


def test_tool_calling(page: Page, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("anthropic")
    with standins.Model() as model:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", model.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
        tool = page.run("tool")["execute_code_in_sandbox"]
    assert capsys.readouterr().out == "fibonacci 55\n\n"
    assert "3): err" in tool("echo out; echo err >&2; exit 3", "bash")
    assert "cobol" in tool("x", "cobol")


def test_long_running_workspace(page: Page, git_server: standins.Git, capsys: pytest.CaptureFixture[str]) -> None:
    page.supply = git_server.supply
    _, public_key = ensure_ssh_key()
    try:
        page.run("workspace", public_key=public_key.read_text())
        assert "agent-workspace" in capsys.readouterr().out
        for command in ("apt-get update", "pip3 install pandas"):
            assert page.recorder.of(command).ok, page.recorder.of(command)
        vm = SmolVM.from_id("agent-workspace")
        assert vm.status is VMState.RUNNING
        assert vm.run("python3 -c 'import pandas, numpy, requests; print(pandas.Series([1, 2]).sum())'").output == "3"
        processors, disk = vm.run("nproc; df -m --output=size / | tail -n 1").output.split()
        assert (processors, 3700 < int(disk) <= 4096) == ("2", True)
        vm.stop()  # the next task finds it stopped
        page.run("tasks", SmolVM=SmolVM, VMState=VMState)
        assert vm.run("cat repo/report").output == "report: 42"
    finally:
        try:
            page.run("end", SmolVM=SmolVM)
        finally:
            with pytest.raises(VMNotFoundError):
                SmolVM.from_id("agent-workspace").delete()


@pytest.mark.skipif(not os.environ.get("SMOLVM_SLOW_TESTS"), reason="installs Chromium: script/test slow")
def test_browser(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    page.supply = standins.supply_site
    page.run("browser")
    out = capsys.readouterr().out
    assert "made by a script" in out, page.recorder.results[-1]


def test_dashboard(page: Page, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page.supply = standins.supply_node
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    answers = []

    def enter(prompt: str) -> None:
        SmolVM.from_id(page.ids[0]).wait_for_port(18789, timeout=120)
        with urllib.request.urlopen("http://127.0.0.1:18789/", timeout=60) as answer:
            answers.append(json.load(answer))

    page.run("dashboard", input=enter)
    assert all(result.ok for _, result in page.recorder.results), page.recorder.results
    assert answers == [{"options": ["gateway", "--allow-unconfigured", "--token", "smolvm-token", "--port", "18789"], "key": "a key"}]
    out = capsys.readouterr().out
    assert f"{page.ids[0]} (10.83.0.2)" in out
    assert "http://127.0.0.1:18789/" in out


def test_best_practices(page: Page, shared: SmolVM, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert page.run("ephemeral", SmolVM=SmolVM)["execute_untrusted_code"]("echo '  x '") == "x"

    config = page.run("limits", VMConfig=VMConfig)["config"]
    page.run("timeout", vm=shared)
    assert "not found" in capsys.readouterr().out

    def app(vm: SmolVM) -> None:
        vm.write_file("/usr/local/bin/my-app", '#!/bin/sh\nprintf %s "$API_KEY"\nnproc\n', mode=0o755)

    page.supply = app
    monkeypatch.setenv("API_KEY", "hunter2")
    page.run("secret", os=os, VMConfig=VMConfig, SmolVM=SmolVM)
    assert page.recorder.of("my-app").stdout == "hunter21\n"
    monkeypatch.delenv("API_KEY")
    with pytest.raises(smolvm.ValidationError, match="API_KEY is None: is the host's variable not set"):
        page.run("secret", os=os, VMConfig=VMConfig, SmolVM=SmolVM)
    with SmolVM(config) as vm:
        assert vm.vm_id == "agent-vm"
        assert vm.run("nproc").output == "1"
        assert 400_000 < int(vm.run("awk '/MemTotal/ {print $2}' /proc/meminfo").output) < 530_000


def test_error_handling(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    safe_execute = page.run("errors")["safe_execute"]
    assert safe_execute("echo a; echo b >&2") == {"success": True, "output": "a\n", "error": None, "exit_code": 0}
    assert safe_execute("echo b >&2; exit 4") == {"success": False, "output": "", "error": "b\n", "exit_code": 4}
    died = safe_execute("echo 1 >/proc/sys/kernel/sysrq; sync; echo c >/proc/sysrq-trigger; sleep 60")
    assert ": the VM " in died["error"], died
    page.timeouts = 0.1
    assert "timed out" in safe_execute("sleep 60")["error"]
    smolvm.close_server()
    monkeypatch.setenv("SMOLVM_BIN", "/bin/false")
    assert ": smolvm serve did not start" in safe_execute("true")["error"]


def test_multi_tenant(page: Page, git_server: standins.Git, capsys: pytest.CaptureFixture[str]) -> None:
    page.supply = git_server.supply
    page.run("tenants")
    assert len(set(page.ids)) == 10
    clones = [result for command, result in page.recorder.results if "git clone" in command]
    assert [r.exit_code for r in clones] == [0] * 10, clones
    assert capsys.readouterr().out == "\n" * 10  # the page runs task.py beside the clone, where there is none
