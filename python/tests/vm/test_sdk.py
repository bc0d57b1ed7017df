"""The package with real VMs: what a double of the server cannot tell."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import pytest

import smolvm
from smolvm import (
    AlreadyExistsError,
    AsyncSmolVM,
    CommandExecutionUnavailableError,
    GuestFileNotFoundError,
    NetworkPolicy,
    OperationTimeoutError,
    SmolVM,
    ValidationError,
    VMConfig,
    VMNotFoundError,
    VMState,
    WrongStateError,
    _serve,
)
from standins import BOOT_TIMEOUT


def gone(vm_id: str, within: float = 5) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if vm_id not in {vm.vm_id for vm in SmolVM.list_vms()}:
            return True
        time.sleep(0.1)
    return False


def script(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_run(shared: SmolVM) -> None:
    assert shared.run("pwd; id -un; shopt -q login_shell && echo login").stdout == "/root\nroot\nlogin\n"
    shared.run("cd /tmp")
    assert shared.run("pwd").output == "/root"
    assert shared.run("shopt login_shell 2>/dev/null || echo plain", shell="raw").output == "plain"
    assert shared.run(["printf", "%s|", "a b", "$HOME"]).stdout == "a b|$HOME|"
    assert shared.run("pwd; id -un", cwd="/tmp", user="nobody").output.split() == ["/tmp", "nobody"]
    r = shared.run("printf 'x\\377'; printf e >&2; kill -KILL $$")
    assert (r.exit_code, r.stdout, r.stderr) == (137, "x\ufffd", "e")
    assert shared.run("cat; echo end", stdin="in\n").stdout == "in\nend\n"
    assert shared.run("cat").stdout == ""
    assert shared.run(["/no/such"]).exit_code == 127
    assert shared.run("true", user="no-such-user").exit_code == 126
    big = shared.run("head -c 20000000 /dev/zero | tr '\\0' x")
    assert (len(big.stdout), big.truncated) == (16 << 20, True)


def test_timeout_kills_all_of_it(shared: SmolVM) -> None:
    with pytest.raises(OperationTimeoutError) as e:
        shared.run("echo before; sleep 1234 & sleep 1234", timeout=3)
    assert e.value.stdout == "before\n"
    assert shared.run("pgrep -c -f 'sleep 1234'", shell="raw").output in ("0", "1")  # the shell that asks has it in its line


def test_background_commands_live_on(shared: SmolVM) -> None:
    begun = time.monotonic()
    assert shared.run("nohup sleep 4321 >/dev/null 2>&1 &").ok
    assert time.monotonic() - begun < 30
    assert shared.run(["pgrep", "-c", "sleep"]).output == "1"
    shared.run(["pkill", "sleep"])


def test_output_as_it_comes(shared: SmolVM) -> None:
    times: list[float] = []
    r = shared.run("for i in 1 2 3; do echo $i; sleep 0.5; done", on_stdout=lambda text: times.append(time.monotonic()))
    assert r.stdout == "1\n2\n3\n"
    assert times[-1] - times[0] > 0.5
    with pytest.raises(OperationTimeoutError) as e:
        shared.run("echo a; sleep 60", timeout=2, on_stdout=lambda text: None)
    assert e.value.stdout == "a\n"

    def enough(text: str) -> None:
        raise KeyError(text)

    with pytest.raises(KeyError):
        shared.run("echo a; exec sleep 2345", on_stdout=enough)
    time.sleep(1)
    assert shared.run(["pgrep", "-c", "sleep"]).output == "0"


def test_processes(shared: SmolVM) -> None:
    with shared.process("read a; echo got $a; read b; echo $b >&2; exit 5", stdin=True) as p:
        p.write("one\n")
        assert next(iter(p)) == ("stdout", b"got one\n")
        p.write("two\n")
        r = p.wait()
        assert (r.exit_code, r.stdout, r.stderr) == (5, "got one\n", "two\n")
    with shared.process("stty size; read x", tty=(30, 90)) as p:
        assert next(iter(p))[1].split()[:2] == [b"30", b"90"]
        p.resize(31, 91)
        p.signal("SIGHUP", group=True)
        assert p.wait().exit_code != 0
    with shared.process("exec sleep 3456") as p:
        assert p.pid > 1
    time.sleep(1)
    assert shared.run(["pgrep", "-c", "sleep"]).output == "0"
    with pytest.raises(ValidationError, match="tty"):
        shared.process("true", tty=(0, 1))


def test_background_processes_are_joined(shared: SmolVM) -> None:
    name = shared.spawn("for i in 1 2 3 4 5; do echo $i; sleep 1; done; exit 6")
    assert any(p.process_id == name and p.running for p in shared.list_processes())
    with shared.attach(name) as p:
        assert next(iter(p))[1].startswith(b"1\n")
        offset = p.offset
    with shared.attach(name, offset=offset) as p:
        assert p.wait().stdout.split()[-1] == "5"
    assert shared.wait_process(name, timeout=60) == 6
    name = shared.spawn(["sleep", "4567"])
    with pytest.raises(OperationTimeoutError):
        shared.wait_process(name, timeout=0.5)
    shared.signal_process(name, "SIGKILL")
    assert shared.wait_process(name, timeout=60) == 137


def test_environment_reaches_every_command(shared: SmolVM) -> None:
    shared.set_env_vars({"TOKEN": 'it\'s "secret" $x\nline'})
    try:
        for command in ("printenv TOKEN", ["printenv", "TOKEN"]):
            assert shared.run(command).stdout == 'it\'s "secret" $x\nline\n'
        assert shared.run("printenv TOKEN", user="nobody", shell="raw").output.startswith("it's")
        # Nowhere else: no command line, no file that all may read.
        assert shared.run(["sh", "-c", "cat /proc/[0-9]*/cmdline | grep -c '[i]t.s .secret' "]).output == "0"
        assert (
            shared.run("grep -rlsI 'it.s .secret' /etc /run /tmp /var/lib 2>/dev/null | xargs -r stat -c %a | grep -v '00$'").output == ""
        )
    finally:
        assert list(shared.unset_env_vars(["TOKEN"])) == ["TOKEN"]
    assert not shared.run(["printenv", "TOKEN"]).ok


def test_files(shared: SmolVM, tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    (tmp_path / "a").write_bytes(data)
    shared.upload_file(tmp_path / "a", "/srv/deep/er/", mode=0o600)
    shared.download_file("/srv/deep/er/a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data
    assert shared.stat_file("/srv/deep/er/a").mode == 0o600
    shared.write_file("/srv/ä ö?&#", "ü")
    assert shared.read_text("/srv/ä ö?&#") == "ü"
    assert sorted(f.name for f in shared.list_dir("/srv")) == ["deep", "ä ö?&#"]
    shared.move_file("/srv/ä ö?&#", "/srv/b")
    shared.remove_file("/srv/b")
    with pytest.raises(GuestFileNotFoundError):
        shared.read_file("/srv/b")
    shared.remove_file("/srv/deep", recursive=True)


def test_ports(shared: SmolVM) -> None:
    shared.run("mkdir -p /srv/www; echo hello > /srv/www/index.html; cd /srv/www; nohup python3 -m http.server 8000 >/dev/null 2>&1 &")
    port = shared.expose_local(8000)
    shared.wait_for_port(8000, timeout=120)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        assert answer.read() == b"hello\n"
    assert shared.expose_local(8000, port) == port
    with pytest.raises(AlreadyExistsError):
        shared.expose_local(8001, port)
    shared.unexpose_local(port, 8000)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
    with pytest.raises(OperationTimeoutError):
        shared.wait_for_port(8002, timeout=0.5)
    shared.run(["pkill", "-f", "http.server"])


def test_network_is_restricted_and_recorded(shared: SmolVM) -> None:
    shared.set_policy(NetworkPolicy.allow("allowed.example:443"))
    try:
        assert not shared.run("curl -sS -m 20 https://forbidden.example/").ok
        assert any(r.name == "forbidden.example" and r.verdict == "deny" for r in shared.network_log())
        assert shared.network_stats()["dns_denied"] >= 1
    finally:
        shared.set_policy("open")


def test_life(monkeypatch: pytest.MonkeyPatch) -> None:
    vm = SmolVM(VMConfig(vm_id="py-life", memory=256, boot_timeout=BOOT_TIMEOUT))
    try:
        assert vm.status is VMState.CREATED
        with pytest.raises(AlreadyExistsError):
            SmolVM(vm_id="py-life")
        assert vm.run("echo first > /root/kept; cat /proc/sys/kernel/hostname").output == "py-life"
        vm.pause()
        with pytest.raises(CommandExecutionUnavailableError, match="paused"):
            vm.run("true", timeout=10)
        vm.resume()
        vm.stop()
        with pytest.raises(WrongStateError):
            vm.pause()
        with pytest.raises(CommandExecutionUnavailableError) as e:
            vm.run("true")
        assert e.value.reason == "the VM is stopped"
        with SmolVM.from_id("py-life") as again:
            assert again.run("cat /root/kept").output == "first"
        assert vm.status is VMState.RUNNING  # it left it so
        # A monitor that is killed.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(vm.run, "sleep 600")
            time.sleep(2)
            os.kill(vm.info.pid, signal.SIGKILL)
            with pytest.raises(CommandExecutionUnavailableError) as lost:
                running.result(60)
        assert "killed" in lost.value.reason
        vm.start()
        # A server that is killed: the command goes on, and so does the VM.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(vm.run, "sleep 3; echo done > /root/done")
            time.sleep(2)
            server = _serve.child_pid()
            assert server is not None
            os.kill(server, signal.SIGKILL)
            with pytest.raises(CommandExecutionUnavailableError, match="server went away"):
                running.result(60)
        time.sleep(3)
        assert vm.run("cat /root/done").output == "done"
        # A start that fails leaves nothing of what it made.
        monkeypatch.setenv("SMOLVM_ENGINE", "")
        with pytest.raises(smolvm.SmolVMError), SmolVM(VMConfig(vm_id="py-never", image="no-such-image")):
            pass
        assert gone("py-never", 0.5)
    finally:
        vm.delete()  # it runs
    with pytest.raises(VMNotFoundError):
        vm.run("true")


def test_killed_python_takes_its_vms_along() -> None:
    p = script("""
        import time
        from smolvm import SmolVM, VMConfig
        kept = SmolVM(VMConfig(vm_id="py-kept", memory=256)).start()
        closed = SmolVM(VMConfig(vm_id="py-closed", memory=256))
        closed.__enter__()
        closed.close()
        with SmolVM(VMConfig(vm_id="py-with", memory=256)) as vm:
            print("ready", flush=True)
            time.sleep(600)
    """)
    try:
        assert p.stdout is not None
        assert p.stdout.readline() == "ready\n"
        p.kill()
        assert gone("py-with", 5)
        time.sleep(1)
        for vm_id in ("py-kept", "py-closed"):
            assert SmolVM.from_id(vm_id).status is VMState.RUNNING
    finally:
        p.kill()
        p.communicate()
        for vm_id in ("py-kept", "py-closed"):
            SmolVM.from_id(vm_id).delete()


def test_ctrl_c_and_fork(shared: SmolVM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED", shared.vm_id)
    p = script("""
        import os, signal, threading, time
        from smolvm import SmolVM
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may have it ignored
        vm = SmolVM.from_id(os.environ["SHARED"])
        threading.Timer(3, lambda: os.killpg(0, signal.SIGINT)).start()
        try:
            vm.run("exec sleep 5678")
        except KeyboardInterrupt:
            time.sleep(1)
            print(vm.run(["pgrep", "-c", "sleep"]).output, flush=True)
        child = os.fork()
        print(os.getpid() if child else 0, vm.run("echo forked").output, flush=True)
        if child:
            os.waitpid(child, 0)
    """)
    out = p.communicate(timeout=120)[0].splitlines()
    assert out[0] == "0"
    assert sorted(line.split()[1] for line in out[1:]) == ["forked", "forked"]


def test_what_is_told(shared: SmolVM) -> None:
    info = shared.info
    assert (info.vm_id, info.owner, info.pid > 0, info.config["memory_mib"]) == (shared.vm_id, "client", True, 512)
    assert shared.stats()["state"] == "running"
    assert "Linux version" in shared.logs() or "virtio" in shared.logs()
    shared.set_ttl(3600)
    assert shared.info.model_extra is not None
    assert shared.info.model_extra["expires_at"]
    shared.set_ttl(None)
    shared.run("getent hosts no-such-name.example")
    assert next(iter(shared.follow_network())).kind
    with pytest.raises(smolvm.NotFoundError):
        shared.attach("no-such-process")


def test_shell_on_a_terminal(shared: SmolVM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED", shared.vm_id)
    code = "import os; from smolvm import SmolVM; print('code', SmolVM.from_id(os.environ['SHARED']).attach_shell())"
    ours, theirs = os.openpty()
    p = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        said = b""
        end = time.monotonic() + 60
        typed = False
        while time.monotonic() < end and b"code 7" not in said:
            try:
                said += os.read(ours, 4096)
            except OSError:  # they closed it
                break
            if not typed and b"#" in said:
                os.write(ours, b"test -t 0 && exit 7\n")
                typed = True
        assert b"code 7" in said
    finally:
        p.kill()
        p.wait()
        os.close(ours)


def test_threads(shared: SmolVM) -> None:
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        out = list(pool.map(lambda i: shared.run(["echo", str(i)]).output, range(60)))
    assert out == [str(i) for i in range(60)]


def test_asynchronous(shared: SmolVM) -> None:
    async def main() -> None:
        vm = await AsyncSmolVM.from_id(shared.vm_id)
        assert await vm.status is VMState.RUNNING
        outputs = await asyncio.gather(*(vm.run(["echo", str(i)]) for i in range(10)))
        assert [r.output for r in outputs] == [str(i) for i in range(10)]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(vm.run("exec sleep 6789"), 3)
        async with await vm.process("cat", stdin=True) as p:
            await p.write("x")
            await p.close_stdin()
            assert (await p.wait()).stdout == "x"
        task = asyncio.create_task(vm.run("exec sleep 7890", on_stdout=print))
        await asyncio.sleep(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(1)
        assert (await vm.run(["pgrep", "-c", "sleep"])).output == "0"

    asyncio.run(main())


def test_shared_server_over_tcp(shared: SmolVM, monkeypatch: pytest.MonkeyPatch) -> None:
    server = subprocess.Popen(
        [_serve.binary(), "serve", "--listen", "127.0.0.1:0", "--exit-with-stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        import json

        assert server.stdout is not None
        told = json.loads(server.stdout.readline())
        token = subprocess.run([_serve.binary(), "token"], capture_output=True, text=True, check=True).stdout.strip()
        monkeypatch.setenv("SMOLVM_HOST", told["url"])
        monkeypatch.setenv("SMOLVM_TOKEN", "wrong" * 10)
        with pytest.raises(smolvm.AccessDeniedError):
            SmolVM.list_vms()
        monkeypatch.setenv("SMOLVM_TOKEN", token)
        vm = SmolVM.from_id(shared.vm_id)
        assert vm.run("echo over TCP", on_stdout=lambda text: None).stdout == "over TCP\n"
        with vm.process("cat", stdin=True) as p:
            p.write("ws")
            p.close_stdin()
            assert p.wait().stdout == "ws"
        with SmolVM(memory=256) as own:
            assert own.info.owner == "lease"
        with pytest.raises(smolvm.AccessDeniedError):
            SmolVM(VMConfig(rootfs_path="/etc/shadow"))
        killed_client_loses_its_lease()
    finally:
        server.communicate("")


def killed_client_loses_its_lease() -> None:
    """Nobody sees the process of a client on another host: its VM stays while its lease is renewed, and no longer."""
    p = script("""
        import time
        from smolvm import SmolVM, VMConfig, _lease
        _lease.LEASE_MS, _lease.EVERY = 4_000, 1.0
        with SmolVM(VMConfig(vm_id="py-lease", memory=256)) as vm:
            time.sleep(6)
            print(vm.status.name, flush=True)
            time.sleep(600)
    """)
    try:
        assert p.stdout is not None
        assert p.stdout.readline() == "RUNNING\n"
        p.kill()
        assert gone("py-lease", 10)
    finally:
        p.kill()
        p.communicate()
