"""The command `smolvm`: becomes the program."""

import os
import sys

from ._serve import binary
from .exceptions import SmolVMError


def main() -> None:
    """Runs the program with our arguments."""
    try:
        program = binary()
    except SmolVMError as e:
        sys.exit(f"smolvm: {e}")
    os.execv(program, ["smolvm", *sys.argv[1:]])  # noqa: S606
