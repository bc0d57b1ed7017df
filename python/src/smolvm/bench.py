"""Measures the package: `python -m smolvm.bench`.

Each figure compares two ways in interleaved pairs and is the median of the pairs' ratios, so that a machine which is busy with
other things is so for both. The exit code is 1 when a goal is missed. `--no-vms` leaves out what boots VMs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ANSWER = b'{"exit_code":0,"guest_us":1200,"stdout":"","stderr":"","duration_ms":2.5}\n'


def serve(path: str) -> None:
    """Answers every request on a unix socket with the same result of a command: a server that takes no time."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
            end = data.find(b"\r\n\r\n")
            if end < 0:
                continue
            length = next(
                (int(line.split(b":")[1]) for line in data[:end].split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
            )
            if len(data) >= end + 4 + length:
                connection.sendall(head + ANSWER)
                data = data[end + 4 + length :]
        connection.close()


def seconds(f: Callable[[], Any], times: int = 1) -> float:
    """How long calls take."""
    begun = time.perf_counter()
    for _ in range(times):
        f()
    return time.perf_counter() - begun


def pairs(count: int, a: Callable[[], float], b: Callable[[], float]) -> list[float]:
    """The ratios of two figures, each pair in another order than the one before."""
    out = []
    for i in range(count):
        if i % 2:
            second = b()
            first = a()
        else:
            first = a()
            second = b()
        out.append(first / second)
    return out


def overhead(count: int) -> list[float]:
    """What `vm.run` takes ÷ a bare httpx POST with an equal answer, over a server that takes no time."""
    import httpx

    from smolvm import SmolVM, _serve, _threads

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "s")
        server = subprocess.Popen([sys.executable, "-m", "smolvm.bench", "--serve", path], stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            server.stdout.readline()
            bare = httpx.Client(transport=httpx.HTTPTransport(uds=path))
            body = {"argv": ["true"], "timeout_ms": 900_000}
            vm = SmolVM.__new__(SmolVM)
            vm._config = None
            vm._setup("bench", "root", None, None)
            vm._there = True
            before = os.environ.get("SMOLVM_HOST")
            os.environ["SMOLVM_HOST"] = path
            # The server takes one connection at a time.
            try:

                def ours() -> float:
                    took = seconds(lambda: vm.run(["true"]), 200)
                    _threads.http_client(_serve.address()).close()
                    _threads._client = None
                    return took

                def theirs() -> float:
                    with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as bare:
                        return seconds(lambda: bare.post("http://smolvm/v1/sandboxes/bench/exec", json=body).json(), 200)

                bare.close()
                ours()
                theirs()
                return pairs(count, ours, theirs)
            finally:
                if before is None:
                    del os.environ["SMOLVM_HOST"]
                else:
                    os.environ["SMOLVM_HOST"] = before
        finally:
            server.kill()
            server.communicate()


def imports(count: int) -> list[float]:
    """What `import smolvm` takes ÷ importing httpx and, of pydantic, which imports itself lazily, what every model needs."""

    def one(what: str) -> Callable[[], float]:
        code = f"import time; t = time.perf_counter(); {what}; print(time.perf_counter() - t)"
        return lambda: float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    ours, theirs = one("import smolvm"), one("import httpx; from pydantic import BaseModel, Field")
    ours()
    theirs()
    return pairs(count, ours, theirs)


def threads(count: int, commands: int) -> list[float]:
    """How many commands 5 threads on 5 VMs run in a second ÷ how many one thread runs on one."""
    from smolvm import SmolVM, VMConfig

    vms = SmolVM.create_many([VMConfig(memory=256)] * 5, concurrency=2)
    try:

        def many() -> float:
            with concurrent.futures.ThreadPoolExecutor(5) as pool:
                took = seconds(lambda: list(pool.map(lambda vm: [vm.run(["true"]) for _ in range(commands)], vms)))
            return 5 * commands / took

        def one() -> float:
            return commands / seconds(lambda: vms[0].run(["true"]), commands)

        many()  # what a guest still does after its boot is no part of it
        return pairs(count, many, one)
    finally:
        for vm in vms:
            vm.delete()


def copies(count: int, mebibytes: int) -> tuple[list[float], list[float]]:
    """How fast upload and download are ÷ `smolvm cp`."""
    from smolvm import SmolVM, VMConfig, _serve

    with tempfile.TemporaryDirectory() as directory, SmolVM(VMConfig(memory=512)) as vm:
        local, other = Path(directory) / "a", Path(directory) / "b"
        local.write_bytes(os.urandom(mebibytes << 20))

        def cli(source: str, target: str) -> float:
            return 1 / seconds(lambda: subprocess.run([_serve.binary(), "cp", source, target], check=True, capture_output=True))

        def up() -> float:
            return 1 / seconds(lambda: vm.upload_file(local, "/root/a"))

        def down() -> float:
            return 1 / seconds(lambda: vm.download_file("/root/a", other))

        up()
        ups = pairs(count, up, lambda: cli(str(local), f"{vm.vm_id}:/root/a"))
        downs = pairs(count, down, lambda: cli(f"{vm.vm_id}:/root/a", str(other)))
        assert other.read_bytes() == local.read_bytes()
        return ups, downs


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m smolvm.bench", description=__doc__)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--no-vms", action="store_true", help="leave out what boots VMs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--pairs", type=int, default=9, metavar="N", help="how many pairs each figure is the median of")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    figures: list[dict[str, Any]] = []

    def figure(name: str, goal: str, samples: list[float]) -> None:
        value, bound = statistics.median(samples), float(goal.split()[1])
        ok = value <= bound if goal.startswith("<=") else value >= bound
        figures.append({"name": name, "value": round(value, 3), "goal": goal, "ok": ok, "samples": [round(s, 3) for s in samples]})
        if not options.json:
            print(f"{name:44} {value:6.2f}  {goal:7} {'ok' if ok else 'MISSED'}", flush=True)

    figure("run ÷ a bare httpx POST, equal answers", "<= 2", overhead(options.pairs))
    figure("import ÷ importing httpx and pydantic", "<= 1.3", imports(options.pairs))
    if not options.no_vms:
        figure("5 threads on 5 VMs ÷ 1 thread, commands/s", ">= 1.3", threads(options.pairs, 40))
        ups, downs = copies(max(3, options.pairs // 2), 32)
        figure("upload ÷ smolvm cp, bytes/s", ">= 0.6", ups)
        figure("download ÷ smolvm cp, bytes/s", ">= 0.6", downs)
    if options.json:
        print(json.dumps(figures))
    return 0 if all(f["ok"] for f in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
