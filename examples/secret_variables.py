"""Gives a program in a VM a secret that no command line shows.

What runs in the VM can read it. Let such a VM reach only the host that the secret is for.
"""

import os

from smolvm import NetworkPolicy, SmolVM, ValidationError, VMConfig

PROGRAM = """
import os
print("a key of", len(os.environ["SERVICE_KEY"]), "characters")
"""


def main() -> None:
    os.environ.setdefault("SERVICE_KEY", "correct horse battery staple")
    config = VMConfig(
        memory=512,
        env_vars={"SERVICE_KEY": os.environ["SERVICE_KEY"]},
        policy=NetworkPolicy.allow("api.service.example:443"),
    )
    with SmolVM(config) as vm:
        print(vm.run(["python3", "-c", PROGRAM]).output)
        print("shown:", vm.info.config["env"])
        vm.unset_env_vars(["SERVICE_KEY"])
        print("afterwards:", vm.run("echo ${SERVICE_KEY:-nothing}").output)
    try:
        VMConfig(env_vars={"OTHER_KEY": os.getenv("A_VARIABLE_THAT_IS_NOT_SET")})
    except ValidationError as e:
        print(f"refused: {e}")


if __name__ == "__main__":
    main()
