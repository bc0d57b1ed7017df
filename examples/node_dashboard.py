"""Starts a web server in a VM, lets it run, and opens it from this host."""

import urllib.request

from smolvm import SmolVM, VMConfig

PORT = 8080
SERVER = """
const http = require("http");
const text = `this is ${require("os").hostname()}, key ${process.env.API_KEY}\\n`;
http.createServer((request, response) => response.end(text)).listen(%d);
"""


def main() -> None:
    config = VMConfig(memory=1024, env_vars={"API_KEY": "from-the-host"})
    with SmolVM(config) as vm:
        vm.run("apt-get update && apt-get install -y --no-install-recommends nodejs", check=True)
        vm.write_file("/srv/dashboard.js", SERVER % PORT)
        vm.run("nohup node /srv/dashboard.js >/tmp/dashboard.log 2>&1 &", timeout=30)
        vm.wait_for_port(PORT, timeout=120)
        host_port = vm.expose_local(guest_port=PORT)
        print(f"listening: http://127.0.0.1:{host_port}/")
        with urllib.request.urlopen(f"http://127.0.0.1:{host_port}/", timeout=60) as answer:
            print(answer.read().decode().strip() == f"this is {vm.vm_id}, key from-the-host")


if __name__ == "__main__":
    main()
