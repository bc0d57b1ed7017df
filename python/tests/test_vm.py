"""SmolVM over the double."""

import asyncio
import concurrent.futures
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import smolvm
from smolvm import (
    AlreadyExistsError,
    AsyncSmolVM,
    Callback,
    CommandBlockedError,
    CommandExecutionUnavailableError,
    CommandFailedError,
    GuestFileNotFoundError,
    HostError,
    ImageBuilder,
    OperationTimeoutError,
    Port,
    SmolVM,
    SmolVMError,
    ValidationError,
    VMAlreadyExistsError,
    VMConfig,
    VMNotFoundError,
    VMState,
    _lease,
    _serve,
)
from smolvm.exceptions import BY_CODE, from_problem


def test_with_makes_and_deletes(double):
    with SmolVM() as vm:
        assert vm.status is VMState.RUNNING
        assert vm.run("echo hi; echo err >&2; exit 3").exit_code == 3
        assert SmolVM.list_vms()[0].owner == "client"
        name = vm.vm_id
    assert SmolVM.list_vms() == []
    with pytest.raises(VMNotFoundError) as e:
        SmolVM.from_id(name)
    assert e.value.vm_id == name


def test_result(double):
    with SmolVM() as vm:
        r = vm.run("printf ' a b \\n'; printf 'x\\xff' >&2")
        assert (r.stdout, r.output, r.ok, r.stderr, r.truncated) == (" a b \n", "a b", True, "x\ufffd", False)
        assert r.duration > 0
        assert vm.run(["printf", "%s", "a b"]).stdout == "a b"
        assert vm.run("kill -9 $$").exit_code == 137
        assert vm.run(["/no/such"]).exit_code == 127
        assert "no/such" in vm.run(["/no/such"]).stderr
        assert vm.run("cat", stdin="text").stdout == "text"
        assert vm.run("wc -c", stdin=b"\0\xff").output == "2"
        assert vm.run("cat").stdout == ""
        assert vm.run("echo $A", env={"A": "b"}).output == "b"
        with pytest.raises(CommandFailedError, match="exit code 4: echo why >&2; exit 4: why") as e:
            vm.run("echo why >&2; exit 4", check=True)
        assert e.value.result.exit_code == 4


def test_first_run_starts_and_close_keeps(double):
    vm = SmolVM(VMConfig(vm_id="kept"))
    assert vm.status is VMState.CREATED
    assert vm.run("true").ok
    assert vm.status is VMState.RUNNING
    vm.close()
    again = SmolVM.from_id("kept")
    with again:
        assert again.run("true").ok
    assert again.status is VMState.RUNNING
    again.stop()
    with SmolVM.from_id("kept") as third:
        assert third.status is VMState.RUNNING
    third.delete()
    with pytest.raises(VMNotFoundError):
        third.delete()


def test_close_within_with_keeps(double):
    with SmolVM(vm_id="stays") as vm:
        vm.close()
    info = SmolVM.from_id("stays").info
    assert (info.status, info.owner) == (VMState.RUNNING, "keep")


def test_a_start_that_fails_leaves_nothing(double):
    double_vm = SmolVM()
    double.trouble("POST /start", 500, "engine", "no boot", remedy="smolvm doctor")
    with pytest.raises(smolvm.EngineError, match="no boot .smolvm doctor.") as e, double_vm:
        pass
    assert e.value.remedy == "smolvm doctor"
    assert SmolVM.list_vms() == []


def test_enter_of_a_running_vm_is_no_start(double):
    vm = SmolVM().start()
    with vm as same:
        assert same is vm
    assert SmolVM.list_vms() == []


def test_body_failure_is_not_hidden(double):
    with pytest.raises(KeyError), SmolVM() as vm:
        double.trouble("DELETE " + vm.vm_id, 500, "internal")
        raise KeyError("x")


def test_pause_resume_and_start(double):
    with SmolVM() as vm:
        vm.pause()
        assert vm.status is VMState.PAUSED
        with pytest.raises(CommandExecutionUnavailableError, match="the VM is paused"):
            vm.run("true")
        vm.start()
        assert vm.status is VMState.RUNNING
        vm.stop()
        vm.stop()
        with pytest.raises(CommandExecutionUnavailableError) as e:
            vm.run("true")
        assert e.value.reason == "the VM is stopped"
        assert e.value.remedy == "vm.start()"


def test_a_vm_that_dies_tells_why(double):
    with SmolVM() as vm, pytest.raises(CommandExecutionUnavailableError) as e:
        vm.run("die")
    assert e.value.reason == "the VM is in state error: the monitor ended: killed by SIGKILL"


def test_timeout_has_what_was_printed(double):
    with SmolVM() as vm:
        with pytest.raises(OperationTimeoutError) as e:
            vm.run("echo before; echo e >&2; sleep 30", timeout=0.3)
        assert (e.value.stdout, e.value.stderr, e.value.timeout_seconds) == ("before\n", "e\n", 0.3)
        assert e.value.operation.startswith("run 'echo before")
        assert isinstance(e.value, TimeoutError)


def test_timeouts_come_from_call_constructor_and_environment(double, monkeypatch):
    def asked(vm: SmolVM, **options) -> object:
        vm.run("true", **options)
        return double.requests()[-1][2].get("timeout_ms")

    with SmolVM() as vm:
        assert asked(vm) == 900_000
        assert asked(vm, timeout=1.5) == 1500
        assert asked(vm, timeout=float("inf")) is None
        monkeypatch.setenv("SMOLVM_RUN_TIMEOUT", "77")
        assert asked(vm) == 77_000
        assert asked(SmolVM.from_id(vm.vm_id, timeout=5)) == 5000
        for wrong in (0, -1, "a", float("nan"), True):
            with pytest.raises(ValidationError, match="timeout"):
                vm.run("true", timeout=wrong)
        monkeypatch.setenv("SMOLVM_RUN_TIMEOUT", "soon")
        with pytest.raises(ValidationError, match="SMOLVM_RUN_TIMEOUT"):
            vm.run("true")


@pytest.mark.parametrize("command", ["", "  ", [], [1], 5, None, b"true"])
def test_commands_that_are_none(double, command):
    with SmolVM() as vm, pytest.raises(ValidationError, match="command"):
        vm.run(command)


def test_shells(double):
    with SmolVM() as vm:
        vm.run("true", shell="raw", cwd="/tmp", user="nobody")
        assert double.requests()[-1][2] == {"script": "true", "timeout_ms": 900_000, "cwd": "/tmp", "user": "nobody"}
        vm.run("true")
        assert double.requests()[-1][2]["login"] is True
        with pytest.raises(ValidationError, match="shell"):
            vm.run("true", shell="zsh")


def test_output_as_it_comes(double):
    got = []
    with SmolVM() as vm:
        r = vm.run(
            "printf '\\303'; sleep .1; printf '\\244\\n'; echo e >&2; exit 2", on_stdout=got.append, on_stderr=lambda t: got.append("!" + t)
        )
        assert "".join(t for t in got if not t.startswith("!")) == "ä\n"
        assert "!e\n" in got
        assert (r.exit_code, r.stdout, r.stderr, r.duration) == (2, "ä\n", "e\n", 0.0015)

        def enough(text):
            raise KeyError(text)

        with pytest.raises(KeyError):
            vm.run("echo a; sleep 60", on_stdout=enough)


def test_callbacks(double):
    heard = []

    class Guard(Callback):
        def on_pre_run(self, ctx):
            heard.append(("pre", ctx.command))
            if "rm -rf" in ctx.command:
                raise CommandBlockedError("not that", ctx.vm_id, ctx.command)

        def on_post_run(self, ctx):
            heard.append(("post", ctx.result.exit_code))

        def on_run_error(self, ctx):
            heard.append(("error", type(ctx.error).__name__))

    with SmolVM(callbacks=[Guard()]) as vm:
        vm.run("exit 1")
        with pytest.raises(CommandBlockedError):
            vm.run("rm -rf /")
        with pytest.raises(OperationTimeoutError):
            vm.run("sleep 9", timeout=0.1)
    assert heard == [("pre", "exit 1"), ("post", 1), ("pre", "rm -rf /"), ("pre", "sleep 9"), ("error", "OperationTimeoutError")]


def test_ports(double):
    with SmolVM() as vm, SmolVM() as other:
        port = vm.expose_local(80)
        assert vm.expose_local(guest_port=81, host_port=18789) == 18789
        assert vm.expose_local(guest_port=81, host_port=18789) == 18789
        with pytest.raises(AlreadyExistsError, match="18789"):
            other.expose_local(80, 18789)
        assert Port(guest_port=80, host_port=port) in vm.list_ports()
        vm.unexpose_local(18789, 81)
        assert len(vm.list_ports()) == 1
        for wrong in (0, 65536, "80", True):
            with pytest.raises(ValidationError, match="guest_port"):
                vm.expose_local(wrong)
        vm.wait_for_port(80)
        with pytest.raises(OperationTimeoutError, match="wait for port 81"):
            vm.wait_for_port(81, timeout=1)
        assert vm.get_ip() == "10.83.0.2"


def test_environment(double):
    with SmolVM(env_vars={"A": "1"}) as vm:
        assert vm.set_env_vars({"B": "2"}) == ["B"]
        assert vm.list_env_vars() == {"A": "1", "B": "2"}
        assert vm.run("echo $A$B").output == "12"
        assert vm.unset_env_vars(["A", "Z"]) == {"A": "1"}
        vm.set_env_vars({"C": "3"}, merge=False)
        assert vm.list_env_vars() == {"C": "3"}
        with pytest.raises(ValidationError, match="KEY is None"):
            vm.set_env_vars({"KEY": None})


def test_secrets(double, monkeypatch):
    monkeypatch.setenv("API_KEY", "value-of-the-variable")
    monkeypatch.delenv("ABSENT_KEY", raising=False)
    config = VMConfig(
        secrets={"API_KEY": "api.example.com", "OTHER": {"hosts": ["*.example.org"], "value": "value-that-is-given", "prefix": "sk-"}}
    )
    assert "value-that" not in repr(config) + str(config.model_dump())
    with SmolVM(config) as vm:
        made = next(body for method, path, body in double.requests() if path == "/v1/sandboxes")
        assert made["secrets"] == [
            {"name": "API_KEY", "hosts": ["api.example.com"], "query": False, "source": "env:API_KEY"},
            {"name": "OTHER", "hosts": ["*.example.org"], "prefix": "sk-", "query": False},
        ]
        values = {"API_KEY": "value-of-the-variable", "OTHER": "value-that-is-given"}
        assert made["secret_values"] == values
        assert next(body for _, path, body in double.requests() if path.endswith("/start")) == {"secret_values": values}
        assert [s["name"] for s in vm.list_secrets()] == ["API_KEY", "OTHER"]
        vm.set_secret("OTHER", "another-value")
        assert double.requests()[-1][2] == {"values": {"OTHER": "another-value"}}
        vm.stop()
        monkeypatch.setenv("API_KEY", "the-next-value")
        vm.set_secret("OTHER", "a-third-value")  # kept until the start
        vm.start()
        assert double.requests()[-1][2] == {"secret_values": {"API_KEY": "the-next-value", "OTHER": "a-third-value"}}
        vm.stop()
        # Who did not make it finds variables by itself, and is told what is missing.
        found = SmolVM.from_id(vm.vm_id)
        with pytest.raises(ValidationError, match="starts with the values of its secrets only: OTHER"):
            found.start()
        SmolVM.from_id(vm.vm_id, secrets={"OTHER": "value-that-is-given"}).start()
        assert double.requests()[-1][2] == {"secret_values": {"API_KEY": "the-next-value", "OTHER": "value-that-is-given"}}
    for secrets, message in (
        ({"ABSENT_KEY": "api.example.com"}, "ABSENT_KEY: its source env:ABSENT_KEY is missing"),
        ({"A": {"hosts": ["a.example.com"], "source": "cmd:id"}}, "not env:VARIABLE"),
        ({"A": {"hosts": ["a.example.com"], "source": "env:A", "value": "hunter2hunter2"}}, "in two ways"),
        ({"A": {"value": "hunter2hunter2"}}, "secrets.A: Secret: hosts"),
    ):
        with pytest.raises(ValidationError, match=message) as e:
            SmolVM(secrets=secrets).start()
        assert "hunter2" not in str(e.value)


def test_files(double, tmp_path):
    with SmolVM() as vm:
        source = tmp_path / "a.bin"
        source.write_bytes(os.urandom(3_000_000))
        assert vm.upload_file(source, "/data/deep/") == "/data/deep/a.bin"
        assert vm.download_file("/data/deep/a.bin", tmp_path / "new" / "b.bin") == str(tmp_path / "new" / "b.bin")
        assert (tmp_path / "new" / "b.bin").read_bytes() == source.read_bytes()
        vm.write_file("/data/t", "ä")
        assert vm.read_file("/data/t") == "ä".encode()
        assert vm.read_text("/data/t") == "ä"
        assert [f.name for f in vm.list_dir("/data")] == ["deep", "t"]
        with pytest.raises(GuestFileNotFoundError) as e:
            vm.read_file("/data/none")
        assert isinstance(e.value, FileNotFoundError)
        with pytest.raises(GuestFileNotFoundError):
            vm.download_file("/data/none", tmp_path / "c")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "new"]
        for call in (lambda: vm.read_file("rel"), lambda: vm.upload_file(source, "rel"), lambda: vm.upload_file("/no/such", "/x")):
            with pytest.raises(ValidationError):
                call()
        vm.delete()
        with pytest.raises(VMNotFoundError):
            vm.read_file("/data/t")


def test_network(double):
    with SmolVM(policy={"mode": "allow", "rules": [{"action": "allow", "host": "pypi.org"}]}) as vm:
        assert vm.get_policy().rules[0].host == "pypi.org"
        vm.set_policy("none")
        assert vm.get_policy().mode == "none"
        assert vm.network_log()[0].name == "example.com"
        with pytest.raises(ValidationError):
            vm.set_policy({"mode": "x"})


def test_image_builder_and_keys(double, tmp_path):
    from smolvm.utils import ensure_ssh_key

    private, public = ensure_ssh_key(tmp_path / "keys")
    assert ensure_ssh_key(tmp_path / "keys") == (private, public)
    assert (private.stat().st_mode & 0o777, (tmp_path / "keys").stat().st_mode & 0o777) == (0o600, 0o700)
    text = public.read_text()
    for key in (public, str(public), text):
        assert ImageBuilder().build_debian_ssh_key(ssh_public_key=key, rootfs_size_mb=4096)[1].name == "rootfs.ext4"
        assert double.requests()[-1][2] == {"ssh_public_key": text.strip(), "name": "debian-ssh-key", "rootfs_size_mb": 4096}
    for wrong in ("nonsense", "/no/such.pub", str(private)):
        with pytest.raises(ValidationError, match="ssh_public_key"):
            ImageBuilder().build_debian_ssh_key(ssh_public_key=wrong)
    vm = SmolVM(ssh_key_path=str(private))
    assert double.requests()[-1][2]["authorized_keys"] == [text.strip()]
    vm.delete()


def test_keys_are_made_once_by_many(tmp_path):
    code = f"from smolvm.utils import ensure_ssh_key; print(open(ensure_ssh_key({str(tmp_path / 'k')!r})[1]).read())"
    many = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert len({p.communicate()[0] for p in many}) == 1
    assert sorted(p.name for p in (tmp_path / "k").iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_taken_names(double):
    with SmolVM(vm_id="one"), pytest.raises(VMAlreadyExistsError) as e:
        SmolVM(vm_id="one")
    assert e.value.vm_id == "one"


def test_create_many(double):
    vms = SmolVM.create_many([VMConfig(vm_id=f"m{i}") for i in range(4)], concurrency=2)
    assert [vm.vm_id for vm in vms] == ["m0", "m1", "m2", "m3"]
    assert all(vm.status is VMState.RUNNING for vm in vms)
    with pytest.raises(VMAlreadyExistsError):
        SmolVM.create_many([VMConfig(vm_id="n0"), VMConfig(vm_id="m0")])
    assert len(SmolVM.list_vms()) == 4


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_class_becomes_its_exception(double, code):
    double.trouble("GET /sandboxes", 400, code, "why", cause="because", remedy="do this")
    with pytest.raises(SmolVMError) as e:
        SmolVM.list_vms()
    assert type(e.value) is BY_CODE[code]
    assert "why" in str(e.value)
    assert (e.value.cause, e.value.remedy) == ("because", "do this")


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_exceptions_cross_processes(code):
    e = from_problem({"code": code, "detail": "why", "remedy": "do"}, vm_id="a")
    again = pickle.loads(pickle.dumps(e))
    assert (type(again), str(again), again.__dict__) == (type(e), str(e), e.__dict__)


def test_server_child_that_is_killed(double):
    assert SmolVM.list_vms() == []
    first = _serve.child_pid()
    os.kill(first, signal.SIGKILL)
    assert SmolVM.list_vms() == []
    assert _serve.child_pid() not in (None, first)
    with SmolVM() as vm:
        threading.Timer(0.3, lambda: os.kill(_serve.child_pid(), signal.SIGKILL)).start()
        with pytest.raises(CommandExecutionUnavailableError, match="server went away"):
            vm.run("sleep 5")
        vm._made = False  # the double forgot it


def test_one_child_for_many_threads(double):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        pids = set(pool.map(lambda _: (SmolVM.list_vms(), _serve.child_pid())[1], range(64)))
    assert len(pids) == 1


def script(code: str, program: str, **env: str) -> subprocess.Popen:
    full = {**os.environ, "SMOLVM_BIN": program, **env}
    return subprocess.Popen([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, env=full)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def ends(pid: int, within: float = 5) -> bool:
    end = time.monotonic() + within
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_forked_processes_have_children_of_their_own(double):
    code = """
        import os, sys
        from smolvm import SmolVM, _serve
        SmolVM.list_vms()
        mine = _serve.child_pid()
        pid = os.fork()
        if pid == 0:
            assert _serve.child_pid() is None
            SmolVM.list_vms()
            print(_serve.child_pid(), flush=True)
            sys.exit(0)
        os.waitpid(pid, 0)
        SmolVM.list_vms()
        assert _serve.child_pid() == mine
        print(mine, flush=True)
    """
    p = script(code, os.environ["SMOLVM_BIN"])
    out = p.communicate()[0].split()
    assert p.returncode == 0
    assert len(set(out)) == 2
    assert all(ends(int(pid)) for pid in out)


def test_forked_process_leaves_its_parents_vms_alone(double, monkeypatch):
    SmolVM.list_vms()
    monkeypatch.setenv("SMOLVM_HOST", _serve.address().socket)
    code = """
        import os, sys
        from smolvm import SmolVM
        with SmolVM() as vm:
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                print(vm.run("echo there").output, flush=True)
        print(len(SmolVM.list_vms()), flush=True)
    """
    assert script(code, os.environ["SMOLVM_BIN"]).communicate()[0].split() == ["1", "there", "0"]


def test_forked_process_does_not_hold_the_parents_child(double):
    code = """
        import os, time
        from smolvm import SmolVM, _serve
        SmolVM.list_vms()
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(_serve.child_pid(), child, flush=True)
        os._exit(0)
    """
    p = script(code, os.environ["SMOLVM_BIN"])
    server, child = map(int, p.stdout.readline().split())
    try:
        assert ends(server)
    finally:
        os.kill(child, signal.SIGKILL)
        p.communicate()


def test_kill_9_ends_the_child(double):
    p = script(
        "from smolvm import SmolVM, _serve; import time; SmolVM.list_vms(); print(_serve.child_pid(), flush=True); time.sleep(60)",
        os.environ["SMOLVM_BIN"],
    )
    server = int(p.stdout.readline())
    p.kill()
    p.communicate()
    assert ends(server)


def test_ctrl_c_interrupts_run_and_not_the_child(double):
    code = """
        import os, signal, sys, threading, time
        from smolvm import SmolVM, _serve
        with SmolVM() as vm:
            threading.Timer(0.5, lambda: os.killpg(0, signal.SIGINT)).start()
            try:
                vm.run("echo $$ > pid; sleep 60")
            except KeyboardInterrupt:
                time.sleep(0.3)
                print(vm.run("kill -0 $(cat pid) 2>/dev/null && echo alive || echo gone").output)
    """
    full = {**os.environ}
    p = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, env=full, start_new_session=True)
    assert p.communicate(timeout=30)[0] == "gone\n"
    assert p.returncode == 0


def test_a_program_that_is_none(monkeypatch):
    monkeypatch.setenv("SMOLVM_BIN", "/no/such")
    with pytest.raises(HostError, match="SMOLVM_BIN"):
        SmolVM.list_vms()
    monkeypatch.setenv("SMOLVM_BIN", "/bin/false")
    with pytest.raises(HostError, match="did not start"):
        SmolVM.list_vms()


def test_leases_are_renewed(monkeypatch):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_PUT(self):
            asked.append((self.path, self.headers["Authorization"], json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(404 if self.path == "/v1/sandboxes/gone/owner" else 204)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(_lease, "EVERY", 0.05)
    try:
        address = _serve.Address(f"http://127.0.0.1:{server.server_address[1]}", None, "t")
        assert _lease.owner(address) == {"owner": "lease", "lease_ms": 60_000}
        _lease.hold(address, "kept")
        _lease.hold(address, "gone")
        _lease.hold(_serve.Address("http://smolvm", "/s"), "local")
        time.sleep(1)
        _lease.release("kept")
        time.sleep(0.3)
        assert not _lease._leases
        assert _lease._thread is None
        paths = [path for path, token, body in asked if token == "Bearer t" and body == {"owner": "lease", "lease_ms": 60_000}]
        assert paths.count("/v1/sandboxes/gone/owner") == 1
        assert paths.count("/v1/sandboxes/kept/owner") > 3
    finally:
        server.shutdown()
        server.server_close()


def test_shared_servers(double, monkeypatch, tmp_path):
    SmolVM(vm_id="seen")
    socket = _serve.address().socket
    for host in (socket, f"unix://{socket}"):
        monkeypatch.setenv("SMOLVM_HOST", host)
        assert [vm.vm_id for vm in SmolVM.list_vms()] == ["seen"]
    monkeypatch.setenv("SMOLVM_HOST", f"unix://{tmp_path}/none")
    with pytest.raises(HostError, match="no server answers"):
        SmolVM.list_vms()
    monkeypatch.setenv("SMOLVM_HOST", "http://127.0.0.1:1")
    monkeypatch.delenv("SMOLVM_TOKEN", raising=False)
    with pytest.raises(ValidationError, match="SMOLVM_TOKEN"):
        SmolVM.list_vms()
    monkeypatch.setenv("SMOLVM_TOKEN", "x")
    with pytest.raises(HostError, match="no server answers"):
        SmolVM.list_vms()
    monkeypatch.setenv("SMOLVM_HOST", "ftp://x")
    with pytest.raises(ValidationError, match="SMOLVM_HOST"):
        SmolVM.list_vms()


def test_asynchronous(double):
    async def main():
        async with AsyncSmolVM() as vm:
            assert await vm.status is VMState.RUNNING
            results = await asyncio.gather(*(vm.run(f"echo {i}") for i in range(20)))
            assert [r.output for r in results] == [str(i) for i in range(20)]
            got = []

            async def hear(text):
                got.append(text)

            await vm.run("echo streamed", on_stdout=hear)
            assert got == ["streamed\n"]
            await vm.write_file("/t", "x")
            assert await vm.read_file("/t") == b"x"
            task = asyncio.create_task(vm.run("echo $$ > pid; sleep 60"))
            await asyncio.sleep(0.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.3)
            assert (await vm.run("kill -0 $(cat pid) 2>/dev/null && echo alive || echo gone")).output == "gone"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(vm.run("sleep 60"), 0.2)
            name = vm.vm_id
        with pytest.raises(VMNotFoundError):
            await AsyncSmolVM.from_id(name)
        vms = await AsyncSmolVM.create_many(3)
        assert len({vm.vm_id for vm in vms}) == 3
        unmade = AsyncSmolVM()
        with pytest.raises(SmolVMError, match="not made yet"):
            _ = unmade.vm_id
        return vms

    asyncio.run(main())
    asyncio.run(main())  # another event loop


def test_cancelled_with_block_deletes(double):
    async def main():
        async def work():
            async with AsyncSmolVM(vm_id="gone"):
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await AsyncSmolVM.list_vms()

    assert asyncio.run(main()) == []


def test_the_two_surfaces_are_the_same():
    def public(kind):
        return {n for n in dir(kind) if not n.startswith("_")}

    assert public(SmolVM) == public(AsyncSmolVM)
    assert public(smolvm.Process) == public(smolvm.AsyncProcess)


def test_many_at_once(double):
    with SmolVM() as vm, concurrent.futures.ThreadPoolExecutor(50) as pool:
        assert all(r.ok for r in pool.map(lambda _: vm.run(["true"]), range(200)))
