"""Helpers around VMs."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .exceptions import HostError, ValidationError

__all__ = ["ensure_ssh_key", "public_key_of", "read_public_key", "which"]


def which(program: str) -> Path | None:
    """Finds a program in PATH."""
    import shutil

    found = shutil.which(program)
    return Path(found) if found else None


def ensure_ssh_key(key_dir: str | Path | None = None) -> tuple[Path, Path]:
    """Gives the paths of a private and a public key (ed25519), which are made at the first call.

    They lie in `~/.smolvm/keys` unless `key_dir` says otherwise. Several processes may call it at once.
    """
    directory = Path(key_dir).expanduser() if key_dir is not None else Path.home() / ".smolvm" / "keys"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if key_dir is None:
            directory.chmod(0o700)
    except OSError as e:
        raise HostError(f"make {directory}: {e.strerror}", remedy="give ensure_ssh_key another key_dir") from e
    private = directory / "id_ed25519"
    public = directory / "id_ed25519.pub"
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not private.exists():
            _generate(directory, private, public)
        elif not public.exists():
            _put(public, public_key_of(private) + "\n", 0o644)
        if private.stat().st_mode & 0o077:
            private.chmod(0o600)
    finally:
        os.close(fd)  # and with it goes the lock
    return private, public


def _generate(directory: Path, private: Path, public: Path) -> None:
    new = directory / f".new-{os.getpid()}"
    try:
        _keygen("-q", "-t", "ed25519", "-N", "", "-C", "smolvm", "-f", str(new))
        os.replace(f"{new}.pub", public)
        os.replace(new, private)
    finally:
        for rest in (new, Path(f"{new}.pub")):
            rest.unlink(missing_ok=True)


def _put(path: Path, text: str, mode: int) -> None:
    new = path.with_name(f".{path.name}-{os.getpid()}")
    new.write_text(text)
    new.chmod(mode)
    os.replace(new, path)


def _keygen(*args: str) -> str:
    import shutil
    import subprocess

    program = shutil.which("ssh-keygen")
    if program is None:
        raise HostError("keys are made by ssh-keygen, which is not there", remedy="apt-get install openssh-client")
    done = subprocess.run([program, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HostError(f"ssh-keygen: {done.stderr.strip() or done.returncode}")
    return done.stdout


def public_key_of(private: str | Path) -> str:
    """The public half of a private key: what lies beside it, or what ssh-keygen says."""
    path = Path(private).expanduser()
    beside = path.with_name(path.name + ".pub")
    if beside.exists():
        return read_public_key(beside)
    if not path.exists():
        raise ValidationError(f"ssh_key_path: there is no file {path}")
    return _keygen("-y", "-P", "", "-f", str(path)).strip()


def read_public_key(key: str | Path) -> str:
    """Reads a public key, given as text or as the path of a file."""
    text = str(key).strip()
    if isinstance(key, Path) or not _looks_like_key(text):
        path = Path(text).expanduser()
        try:
            text = path.read_text().strip()
        except (OSError, ValueError) as e:
            why = e.strerror if isinstance(e, OSError) else "it is no text"
            raise ValidationError(f"ssh_public_key: {path} is neither a public key nor a file with one: {why}") from None
    if not _looks_like_key(text) or "\n" in text:
        raise ValidationError(
            "ssh_public_key: this is no public key in OpenSSH's form", remedy="give the text of, or the path to, a .pub file"
        )
    return text


def _looks_like_key(text: str) -> bool:
    return text.split(" ", 1)[0].startswith(("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-")) and len(text.split()) >= 2
