"""What can go wrong, and how it is told."""

from smolvm import (
    CommandExecutionUnavailableError,
    CommandFailedError,
    OperationTimeoutError,
    SmolVM,
    SmolVMError,
    ValidationError,
    VMConfig,
    VMNotFoundError,
)


def main() -> None:
    try:
        VMConfig(mem_size_mb=512)
    except ValidationError as e:
        print(f"refused: {e}")
    try:
        SmolVM.from_id("no-such-vm")
    except VMNotFoundError as e:
        print(f"not found: {e.vm_id}")

    with SmolVM() as vm:
        result = vm.run("ls /nowhere")  # a command that fails is no exception …
        print(f"exit code {result.exit_code}: {result.stderr.strip()}")
        try:
            vm.run("ls /nowhere", check=True)  # … unless you say so
        except CommandFailedError as e:
            print(f"failed: {e.result.exit_code}")
        try:
            vm.run("echo begun; sleep 60", timeout=1)
        except OperationTimeoutError as e:
            print(f"timed out after {e.timeout_seconds:g} s, having printed {e.stdout!r}")
        try:
            vm.stop()
            vm.run("true")
        except CommandExecutionUnavailableError as e:
            print(f"no command: {e.reason}; what helps: {e.remedy}")
        try:
            vm.expose_local(guest_port=80, host_port=0)
        except SmolVMError as e:
            print(f"{type(e).__name__}: {e}")


if __name__ == "__main__":
    main()
