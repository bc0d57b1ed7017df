"""A VM that stays: each step may be another process, hours later.

python persistent_workspace.py create
python persistent_workspace.py run "git clone https://git.example/project.git"
python persistent_workspace.py run "make -C project test"
python persistent_workspace.py delete
"""

import sys

from smolvm import SmolVM, VMConfig, VMNotFoundError, VMState

NAME = "example-workbench"


def create() -> None:
    vm = SmolVM(VMConfig(vm_id=NAME, memory=1024))
    vm.start()
    vm.run("mkdir -p ~/notes && date > ~/notes/created", check=True)
    print(f"{vm.vm_id} is made")
    vm.close()  # lets go of it; it runs on


def run(task: str) -> int:
    vm = SmolVM.from_id(NAME)
    if vm.status is not VMState.RUNNING:
        vm.start()
    result = vm.run(task, timeout=600)
    print(result.stdout, end="")
    print(result.stderr, end="", file=sys.stderr)
    return result.exit_code


def delete() -> None:
    try:
        SmolVM.from_id(NAME).delete()
    except VMNotFoundError:
        print("it was gone already")
    else:
        print("deleted")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["create"]:
            create()
        case ["run", task]:
            sys.exit(run(task))
        case ["delete"]:
            delete()
        case _:
            sys.exit(__doc__)
