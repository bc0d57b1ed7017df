"""A stand-in for `smolvm serve` without VMs: it keeps records in memory and runs commands in a directory of this host.

`python double.py serve --socket PATH --exit-with-stdin` is what the package starts in the place of the program.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit


class Problem(Exception):
    def __init__(self, status: int, code: str, detail: str, **more: str) -> None:
        super().__init__(detail)
        self.status, self.body = status, {"status": status, "code": code, "detail": detail, **more}


class Guest:
    def __init__(self, config: dict) -> None:
        self.config = config
        self.id = config["id"]
        self.state, self.reason, self.owner = "created", "", config.pop("owner", "keep")
        config.pop("client_pid", None)
        self.env = dict(config.get("env") or {})
        self.network = config.get("network") or {"mode": "open"}
        self.ports = list(config.get("ports") or [])
        self.root = tempfile.mkdtemp(prefix="guest-", dir=STATE.directory)
        self.lock = threading.Lock()

    def wire(self) -> dict:
        config = {**self.config, "env": dict.fromkeys(self.env, "***")}
        return {
            "id": self.id,
            "state": self.state,
            "reason": self.reason,
            "owner": self.owner,
            "config": config,
            "vmm_pid": 1 if self.state == "running" else 0,
            "ports": self.ports,
            "network": self.network,
            "created_at": "2026-11-25T07:00:00Z",
        }


class State:
    def __init__(self) -> None:
        self.guests: dict[str, Guest] = {}
        self.lock = threading.Lock()
        self.requests: list[tuple[str, str, object]] = []
        self.named = 0
        self.directory = ""
        self.trouble: dict[str, Problem] = {}  # "METHOD PATH-END" → what it fails with, once


STATE = State()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def log_message(self, *args: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"

    def json(self, value: object, status: int = 200) -> None:
        body = json.dumps(value, default=repr).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def empty(self) -> None:
        self.send_response(204)
        self.end_headers()
        self.wfile.flush()

    def begin_events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk(b": begin\n\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, name: str, value: object) -> None:
        self.chunk(f"event: {name}\ndata: {json.dumps(value)}\n\n".encode())

    def long(self, f) -> None:
        if "text/event-stream" not in self.headers.get("Accept", ""):
            return self.json(f())
        self.begin_events()
        self.event("progress", {"stage": "boot", "detail": "a step"})
        try:
            self.event("result", f())
        except Problem as e:
            self.event("error", e.body)
        self.chunk(b"")
        return None

    def body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            out = b""
            while size := int(self.rfile.readline(), 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        raw = self.body()
        body = json.loads(raw) if raw and "json" in self.headers.get("Content-Type", "") else raw
        STATE.requests.append((self.command, self.path, body))
        try:
            for key, trouble in list(STATE.trouble.items()):
                method, _, end = key.partition(" ")
                if method == self.command and url.path.endswith(end):
                    del STATE.trouble[key]
                    raise trouble
            self.route(self.command, url.path.strip("/").split("/")[1:], query, body)
        except Problem as e:
            self.json(e.body, e.status)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def route(self, method: str, path: list[str], query: dict, body) -> None:
        if path == ["double", "requests"]:
            return self.json(STATE.requests)
        if path == ["double", "trouble"]:
            for key, (status, code, detail, more) in body.items():
                STATE.trouble[key] = Problem(status, code, detail, **more)
            return self.empty()
        if path == ["images", "ssh"]:
            return self.long(lambda: {"kernel_path": "/k/vmlinux", "rootfs_path": f"/i/{body['name']}/rootfs.ext4"})
        if path == ["sandboxes"]:
            if method == "GET":
                return self.json({"sandboxes": [g.wire() for g in STATE.guests.values()]})
            return self.long(lambda: self.create(body))
        guest = STATE.guests.get(path[1])
        if guest is None:
            raise Problem(404, "not_found", f"VM {path[1]}: there is none", remedy="smolvm ls -a")
        return self.of_guest(method, "/".join(path[2:]), guest, query, body)

    def create(self, body: dict) -> dict:
        with STATE.lock:
            STATE.named += 1
            body.setdefault("id", f"vm-{os.getpid()}-{STATE.named}")
            if body["id"] in STATE.guests:
                raise Problem(409, "already_exists", f"VM {body['id']} is there already")
            guest = STATE.guests[body["id"]] = Guest({k: v for k, v in body.items() if k != "secret_values"})
        return guest.wire()

    def of_guest(self, method: str, rest: str, g: Guest, query: dict, body) -> None:
        def to(state: str, *allowed: str) -> dict:
            if g.state not in allowed:
                raise Problem(409, "wrong_state", f"VM {g.id} is {g.state}")
            g.state = state
            return g.wire()

        if rest == "" and method == "GET":
            return self.json(g.wire())
        if rest == "" and method == "DELETE":
            STATE.guests.pop(g.id)
            subprocess.run(["rm", "-rf", g.root], check=False)
            return self.empty()
        if rest == "start":
            missing = [s["name"] for s in g.config.get("secrets") or [] if s["name"] not in ((body or {}).get("secret_values") or {})]
            if missing and g.state != "running":
                raise Problem(400, "invalid", f"the VM {g.id} starts with the values of its secrets only: {', '.join(missing)}")
            return self.long(lambda: to("running", "created", "stopped", "error"))
        if rest == "stop":
            return self.json(to("stopped", "running", "paused"))
        if rest == "pause":
            to("paused", "running")
            return self.empty()
        if rest == "unpause":
            to("running", "paused")
            return self.empty()
        if rest == "owner":
            g.owner = body["owner"]
            return self.empty()
        if rest == "ttl":
            return self.json(g.wire())
        if rest == "env":
            return self.env(method, g, body)
        if rest == "secrets":
            if method == "PATCH" and g.state != "running":
                raise Problem(409, "wrong_state", f"VM {g.id} is {g.state}")
            return self.json({"secrets": g.config.get("secrets") or []})
        if rest == "ports":
            return self.ports(method, g, query, body)
        if rest == "ports/wait":
            if body["port"] != 80:
                raise Problem(504, "timeout", f"nothing listens on port {body['port']}")
            return self.empty()
        if rest == "network":
            if method == "PUT":
                g.network = body
            return self.json(g.network)
        if rest == "network/log":
            self.begin_events()
            self.event("record", {"time": "2026-11-25T07:00:00Z", "kind": "dns", "name": "example.com", "verdict": "deny", "new_field": 1})
            return self.chunk(b"")
        if rest == "stats":
            return self.json({"state": g.state})
        if rest.startswith("files"):
            return self.files(method, rest, g, query, body)
        if g.state != "running":
            raise Problem(409, "wrong_state", f"VM {g.id} is {g.state}: it does not run")
        if rest == "exec":
            return self.exec(g, body)
        if rest == "exec/stream":
            return self.stream(g, body)
        raise Problem(404, "not_found", f"no route {rest}")

    def env(self, method: str, g: Guest, body) -> None:
        if method == "PATCH":
            if body.get("replace"):
                g.env = {}
            g.env |= body.get("set") or {}
            for name in body.get("unset") or []:
                g.env.pop(name, None)
        self.json({"env": g.env})

    def ports(self, method: str, g: Guest, query: dict, body) -> None:
        if method == "POST":
            taken = {p["host_port"] for other in STATE.guests.values() for p in other.ports}
            port = {"address": "127.0.0.1", "host_port": 30000 + len(taken), **body}
            if port["host_port"] in taken:
                raise Problem(409, "already_exists", f"port {port['host_port']} of 127.0.0.1 is taken on this host")
            g.ports.append(port)
            return self.json(port, 201)
        if method == "DELETE":
            g.ports = [p for p in g.ports if p["host_port"] != int(query["host_port"])]
            return self.json({})
        return self.json({"ports": g.ports})

    def files(self, method: str, rest: str, g: Guest, query: dict, body) -> None:
        where = g.root + query["path"] if "path" in query else g.root + (body or {}).get("path", "")
        try:
            if rest == "files/mkdir":
                os.makedirs(where, exist_ok=True)
                return self.empty()
            if rest == "files/content" and method == "PUT":
                with open(where, "wb") as f:
                    f.write(body)
                os.chmod(where, int(query["mode"], 8))
                return self.empty()
            if rest == "files/content":
                with open(where, "rb") as f:
                    data = f.read()
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return self.wfile.flush()
            if rest == "files/list":
                names = sorted(os.listdir(where))
                return self.json({"entries": [{"name": n, "path": query["path"] + "/" + n, "type": "file", "later": 1} for n in names]})
            if rest == "files":
                os.unlink(where)
                return self.empty()
        except OSError as e:
            raise Problem(404, "not_found", f"{e.strerror}") from e
        raise Problem(404, "not_found", f"no route {rest}")

    def popen(self, g: Guest, body: dict) -> subprocess.Popen:
        argv = body.get("argv") or ["/bin/bash", "-c", body["script"]]
        env = {"PATH": os.environ["PATH"], **g.env, **(body.get("env") or {})}
        return subprocess.Popen(
            argv, cwd=g.root, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )

    def gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        if not readable:
            return False
        with contextlib.suppress(OSError):
            return self.connection.recv(1, 2) == b""  # MSG_PEEK
        return True

    def exec(self, g: Guest, body: dict) -> None:
        if body.get("script") == "die":
            g.state, g.reason = "error", "the monitor ended: killed by SIGKILL"
            raise Problem(503, "unavailable", "the link to the agent broke")
        begun = time.monotonic()
        with open(os.path.join(g.root, "in"), "wb") as f:
            f.write(base64.b64decode(body["input_base64"]) if "input_base64" in body else body.get("input", "").encode())
        try:
            p = self.popen(g, body)
        except OSError as e:
            return self.json({"exit_code": 127, "error": str(e), "stdout": "", "stderr": "", "duration_ms": 0})
        out: list[bytes] = []
        reader = threading.Thread(target=lambda: out.extend(p.communicate(open(os.path.join(g.root, "in"), "rb").read())))
        reader.start()
        end = begun + body.get("timeout_ms", 10**9) / 1000
        timed_out = False
        while reader.is_alive():
            reader.join(0.02)
            if self.gone() or time.monotonic() > end:
                timed_out = time.monotonic() > end
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(p.pid, 9)
                reader.join()
        code = p.returncode if p.returncode >= 0 else 128 - p.returncode
        self.json(
            {
                "exit_code": 124 if timed_out else code,
                "timed_out": timed_out,
                "stdout": out[0].decode(errors="replace"),
                "stderr": out[1].decode(errors="replace"),
                "duration_ms": (time.monotonic() - begun) * 1000,
            }
        )

    def stream(self, g: Guest, body: dict) -> None:
        self.begin_events()
        p = self.popen(g, body)
        p.stdin.close()
        self.event("started", {"exec_id": "x", "pid": p.pid})
        open_files = {p.stdout.fileno(): "stdout", p.stderr.fileno(): "stderr"}
        while open_files:
            readable, _, _ = select.select(list(open_files), [], [], 0.05)
            if self.gone():
                os.killpg(p.pid, 9)
                p.wait()
                return
            for fd in readable:
                data = os.read(fd, 65536)
                if data:
                    self.event(open_files[fd], {"data": base64.b64encode(data).decode()})
                else:
                    del open_files[fd]
        p.wait()
        self.event("exit", {"exit_code": p.returncode, "guest_us": 1500})
        self.chunk(b"")


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    arguments = sys.argv[1:]
    path = arguments[arguments.index("--socket") + 1]
    STATE.directory = os.path.dirname(path)
    server = Server(path, Handler)
    print(json.dumps({"socket": path, "version": "double"}), flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if "--exit-with-stdin" in arguments:
        sys.stdin.read()
    else:
        threading.Event().wait()
    subprocess.run(["rm", "-rf", STATE.directory], check=False)


if __name__ == "__main__":
    main()
