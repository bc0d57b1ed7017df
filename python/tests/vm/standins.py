"""Stand-ins for hosts that a test machine may not reach: models' APIs, GitHub, NodeSource's and npm's archives."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from smolvm import NetworkPolicy, NetworkRule, SmolVM

# How long a start may take, where that is longer than elsewhere; else what holds by itself.
BOOT_TIMEOUT = float(os.environ.get("SMOLVM_TEST_BOOT_TIMEOUT", "0")) or None

FIBONACCI = "a, b = 0, 1\nfor _ in range(10):\n    a, b = b, a + b\nprint('fibonacci', a)\n"


class _Server:
    def __init__(self, handler: Any) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Any:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Model(_Server):
    """Speaks as much of the Messages API and of chat completions as a tool call needs: it asks for fibonacci, then is content."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model.requests.append(body)
                answer = json.dumps(model.messages(body) if self.path.startswith("/v1/messages") else model.chat(body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        super().__init__(Handler)

    def messages(self, body: dict[str, Any]) -> dict[str, Any]:
        last = body["messages"][-1]["content"]
        results = [b for b in last if isinstance(b, dict) and b.get("type") == "tool_result"] if isinstance(last, list) else []
        if results:
            content = [{"type": "text", "text": f"The tool said: {results[0]['content'].strip()}"}]
        else:
            tool = body["tools"][0]
            argument = tool["input_schema"]["required"][0]
            use = {"type": "tool_use", "id": "toolu_1", "name": tool["name"], "input": {argument: FIBONACCI}}
            content = [{"type": "text", "text": "I will calculate that."}, use]
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": "end_turn" if results else "tool_use",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        last = body["messages"][-1]
        if last["role"] == "tool":
            message: dict[str, Any] = {"role": "assistant", "content": f"The tool said: {last['content']}"}
        else:
            function = {"name": body["tools"][0]["function"]["name"], "arguments": json.dumps({"source": FIBONACCI})}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        }


class Git(_Server):
    """Serves one repository over HTTP, on this host's loopback."""

    def __init__(self, directory: Path) -> None:
        work, bare = directory / "work", directory / "srv" / "repo.git"
        work.mkdir()
        (work / "analyze.py").write_text("print(6 * 7, file=open('analysis', 'w'))\n")
        (work / "generate_report.py").write_text("print('report:', open('analysis').read().strip(), file=open('report', 'w'))\n")

        def git(*args: str) -> None:
            name = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
            subprocess.run(["git", *name, *args], cwd=work, check=True, capture_output=True)

        git("init", "-q", "-b", "main")
        git("add", ".")
        git("commit", "-q", "-m", "first")
        git("clone", "-q", "--bare", str(work), str(bare))
        subprocess.run(["git", "update-server-info"], cwd=bare, check=True)

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        super().__init__(partial(Handler, directory=str(bare.parent)))

    def supply(self, vm: SmolVM) -> None:
        """Has git in the VM find the repository here under the names that the page has."""
        here = NetworkRule(action="allow", host="host.smolvm.internal", ports=[str(self.port)])
        vm.set_policy(NetworkPolicy(mode="open", rules=[here]))
        url = f"http://host.smolvm.internal:{self.port}/repo.git"
        for name in ("https://github.com/user/repo", "https://repo.git"):
            vm.run(["git", "config", "--system", "--add", f"url.{url}.insteadOf", name], check=True)


# example.com cannot be reached: in the VM its name is the VM's own, and Chromium takes a certificate that nobody signed. (Debian's
# wrapper splits these flags at spaces, whatever their quotes.)
_FLAGS = 'export CHROMIUM_FLAGS="$CHROMIUM_FLAGS --ignore-certificate-errors"\n'
_HTTPS = """
import http.server, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<title>here</title><p id=p></p><script>p.textContent = 'made by ' + 'a script'</script>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/cert.pem", "/srv/key.pem")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def supply_site(vm: SmolVM) -> None:
    """Puts the stand-in for example.com into a VM."""
    vm.write_file("/etc/chromium.d/standin", _FLAGS)
    vm.write_file("/srv/https.py", _HTTPS)
    subject = "-subj /CN=example.com -keyout /srv/key.pem -out /srv/cert.pem"
    vm.run(f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 {subject}", check=True)
    vm.run("echo 127.0.0.1 example.com >>/etc/hosts", check=True)
    vm.spawn(["python3", "/srv/https.py"])
    vm.wait_for_port(443, timeout=120)


# NodeSource cannot be reached: its key is Debian's, and its list is taken away before apt reads it, so that Node comes from Debian.
_CURL = """#!/bin/sh
case "$*" in
*deb.nodesource.com/gpgkey*) exec gpg --enarmor </usr/share/keyrings/debian-archive-keyring.gpg ;;
*) exec /usr/bin/curl "$@" ;;
esac
"""
_APT = """#!/bin/sh
rm -f /etc/apt/sources.list.d/nodesource.list
exec /usr/bin/apt-get "$@"
"""
# npm's registry cannot be reached: what `npm install -g openclaw` installs is a web server that keeps its options.
_NPM = """#!/bin/sh
[ "$*" = "install -g openclaw" ] || exit 1
cat >/usr/local/bin/openclaw <<'END'
#!/usr/bin/env node
const options = process.argv.slice(2);
const port = Number(options[options.indexOf("--port") + 1]);
const text = JSON.stringify({options, key: process.env.OPENAI_API_KEY});
require("http").createServer((request, response) => response.end(text)).listen(port);
END
chmod 755 /usr/local/bin/openclaw
"""


def supply_node(vm: SmolVM) -> None:
    """Puts the stand-ins for NodeSource and npm into a VM."""
    for name, text in (("curl", _CURL), ("apt-get", _APT), ("npm", _NPM)):
        vm.write_file(f"/usr/local/bin/{name}", text, mode=0o755)
