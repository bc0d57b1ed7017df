"""Ten workspaces, five at a time, each in a VM of its own."""

import concurrent.futures

from smolvm import SmolVM, VMConfig


def count(number: int) -> str:
    """Has a VM of its own write a file and look what else is there: what the other VMs wrote is not."""
    with SmolVM(VMConfig(memory=256)) as vm:
        vm.write_file(f"/srv/box/{number}.txt", "x" * number)
        return vm.run("wc -c *", cwd="/srv/box", check=True).output


def main() -> None:
    with concurrent.futures.ThreadPoolExecutor(max_workers=5) as pool:
        for line in pool.map(count, range(1, 11)):
            print(line)


if __name__ == "__main__":
    main()
