"""Puts the static program into the wheel. SMOLVM_WHEEL_PROGRAM names it; script/wheel sets it."""

import os
import stat
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TAG = "py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64"


class ProgramHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # SMOLVM_BIN or PATH give the program then
            return
        program = os.environ.get("SMOLVM_WHEEL_PROGRAM", "")
        if not program:
            raise RuntimeError("the wheel carries the program smolvm: build it with script/wheel")
        with open(program, "rb") as f:
            if f.read(4) != b"\x7fELF":
                raise RuntimeError(f"{program} is no program")
        if not os.stat(program).st_mode & stat.S_IXUSR:
            raise RuntimeError(f"{program} is not executable")
        build_data["pure_python"] = False
        build_data["tag"] = TAG
        build_data["force_include"][program] = "smolvm/bin/smolvm"
