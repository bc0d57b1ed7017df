"""Bounds what a VM may use, and lets code that wants more run into them.

`cpu_share=50` would bound processor time too, where control groups are ours to make: as root, or delegated.
"""

from smolvm import OperationTimeoutError, SmolVM, VMConfig

CONFIG = VMConfig(
    vcpu_count=1,
    memory=256,  # MiB
    disk_size_mib=512,
    max_processes=64,
    ttl=600,  # seconds, after which it is stopped whatever happens
    policy="none",  # no network at all
)


def main() -> None:
    with SmolVM(CONFIG) as vm:
        memory = vm.run(["python3", "-c", "x = b'x' * (1 << 30)"])
        print(f"memory: exit code {memory.exit_code}")
        disk = vm.run("head -c 2G /dev/zero > /root/big")
        print(f"disk: {disk.stderr.strip()}")
        vm.remove_file("/root/big")
        processes = vm.run("for i in $(seq 200); do sleep 100 & done; true")
        print(f"processes: {'refused' if 'fork' in processes.stderr else 'all started'}")
        vm.run("pkill sleep; true")
        network = vm.run("curl -sS -m 5 http://example.com")
        print(f"network: exit code {network.exit_code}")
        try:
            vm.run("while :; do :; done", timeout=1)
        except OperationTimeoutError as e:
            print(f"time: stopped after {e.timeout_seconds:g} s")


if __name__ == "__main__":
    main()
