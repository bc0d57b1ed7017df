"""Logs in to a VM with OpenSSH's own client, with a key of ours."""

import shlex
import subprocess

from smolvm import SSH_BOOT_ARGS, ImageBuilder, SmolVM, VMConfig
from smolvm.utils import ensure_ssh_key


def main() -> None:
    private_key, public_key = ensure_ssh_key()
    kernel, rootfs = ImageBuilder().build_debian_ssh_key(ssh_public_key=public_key, rootfs_size_mb=2048)
    config = VMConfig(kernel_path=kernel, rootfs_path=rootfs, boot_args=SSH_BOOT_ARGS)
    with SmolVM(config, ssh_key_path=str(private_key)) as vm:
        vm.expose_local(22)
        vm.wait_for_port(22, timeout=120)
        command = vm.ssh_commands()["local_port"]
        print(command.split(" -o ")[0])
        done = subprocess.run(
            [*shlex.split(command), "hostname; id -un; df -m --output=size / | tail -n 1"], capture_output=True, text=True, timeout=120
        )
        print(done.stdout, end="")
        print(f"the VM is {vm.vm_id}")


if __name__ == "__main__":
    main()
