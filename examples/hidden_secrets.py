"""Lets code in a VM use a key that it cannot read.

The key is put into requests by the VM's gateway, outside of the VM. The service is a stand-in on this host's loopback, to
which a proxy leads.
"""

import os
import ssl
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection

HOST = "api.service.example"
PROGRAM = """
import os, urllib.request
key = os.environ["SERVICE_KEY"]
for host in ("api.service.example", "elsewhere.example"):
    request = urllib.request.Request(f"https://{host}/hello", headers={"Authorization": "Bearer " + key})
    try:
        print(host, "answers:", urllib.request.urlopen(request).read().decode())
    except urllib.error.HTTPError as e:
        print(host, "is refused:", e.code)
print("the key here begins with", key[:3], "and opens nothing")
"""


class Service(BaseHTTPRequestHandler):
    keys: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        Service.keys.append(self.headers["Authorization"])
        body = b"welcome"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def copy(a, b) -> None:
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    finally:
        b.close()


def stand_in(directory: Path) -> tuple[str, Path]:
    """Serves the service, and a proxy that leads every name to it."""
    authority, key, cert = directory / "ca.pem", directory / "key.pem", directory / "cert.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-keyout", key]
    names = f"subjectAltName=DNS:{HOST},DNS:elsewhere.example"
    subprocess.run([*new, "-out", cert, "-subj", f"/CN={HOST}", "-addext", names], check=True, capture_output=True)
    authority.write_bytes(cert.read_bytes())
    service = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    service.socket = context.wrap_socket(service.socket, server_side=True)

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            up = create_connection(service.server_address[:2])
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            threading.Thread(target=copy, args=(up, self.connection), daemon=True).start()
            copy(self.connection, up)

        def log_message(self, *args: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    for server in (service, proxy):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{proxy.server_address[1]}", authority


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HTTPS_PROXY"], authority = stand_in(Path(directory))
        os.environ["SSL_CERT_FILE"] = str(authority)
        os.environ["NO_PROXY"] = "127.0.0.1"
        from smolvm import NetworkPolicy, Secret, SmolVM, VMConfig

        os.environ.setdefault("SERVICE_KEY", "sk-correct-horse-battery-staple")
        config = VMConfig(
            memory=512,
            secrets={"SERVICE_KEY": Secret(hosts=HOST, prefix="sk-")},  # its value: this process's variable of that name
            policy=NetworkPolicy.allow(f"{HOST}:443", "elsewhere.example:443"),
        )
        with SmolVM(config) as vm:
            print(vm.run(["python3", "-c", PROGRAM]).output)
            print("the service saw the key:", Service.keys == ["Bearer " + os.environ["SERVICE_KEY"]])
            vm.set_secret("SERVICE_KEY", "sk-another-horse-battery-staple")
            vm.run(["python3", "-c", PROGRAM])
            print("and the next one:", Service.keys[1:] == ["Bearer sk-another-horse-battery-staple"])


if __name__ == "__main__":
    main()
