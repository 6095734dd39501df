"""One-time codes: an sshd that requests one by PAM and accepts each once."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.bed.sshd import find_sshd

# sshd's lines that go with it; a key is the first factor.
OPTIONS = ("UsePAM yes", "KbdInteractiveAuthentication yes", "AuthenticationMethods publickey,keyboard-interactive")
# `Sshd` recognises its processes by the first four letters.
_PREFIX = "sshd-jmbed-"
_SERVICES = Path("/etc/pam.d")
# The answer is on stdin, without a newline and, by the version of PAM, with a zero byte.
_CHECK = """\
#!/bin/sh
cd '{folder}' || exit 1
code=$(tr -d '\\000')
printf '%s\\n' "$code" >>tried
grep -qxF -e "$code" valid || exit 1
grep -vxF -e "$code" valid >rest
mv rest valid
"""
_SERVICE = """\
auth required pam_exec.so expose_authtok quiet {check}
auth required pam_permit.so
account required pam_permit.so
session required pam_permit.so
"""


@dataclass(frozen=True)
class Codes:
    """The codes.

    Attributes:
        program: to run as sshd; its name is that of its own PAM service.
    """

    program: Path
    _folder: Path

    def new(self) -> str:
        """Make a code that is accepted once."""
        code = uuid.uuid4().hex[:12]
        with (self._folder / "valid").open("a") as valid:
            valid.write(f"{code}\n")
        return code

    @property
    def tried(self) -> list[str]:
        """All answers so far, right or wrong."""
        tried = self._folder / "tried"
        return tried.read_text().splitlines() if tried.exists() else []


@contextlib.contextmanager
def one_time_codes(folder: Path) -> Iterator[Codes]:
    """Set up the codes; the test is skipped when that is not possible.

    Args:
        folder: an absolute path for its files; is made.

    Yields:
        The codes; ``bed.start_sshd(*OPTIONS, program=codes.program)`` requests them.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can name a PAM service")
    if not [*Path("/lib").glob("*/security/pam_exec.so"), *Path("/usr").glob("lib*/security/pam_exec.so")]:
        pytest.skip("PAM cannot run programs here (pam_exec)")
    _sweep()
    sshd = find_sshd()
    assert sshd is not None
    folder.mkdir()
    (folder / "valid").touch(0o600)
    check = folder / "check"
    check.write_text(_CHECK.format(folder=folder))
    check.chmod(0o755)
    # sshd's service is called as the program is (sshd_config(5), UsePAM; pam_start in auth-pam.c).
    name = f"{_PREFIX}{os.getpid():x}-{uuid.uuid4().hex[:4]}"
    program, service = folder / name, _SERVICES / name
    program.symlink_to(sshd)
    try:
        service.write_text(_SERVICE.format(check=check))
        yield Codes(program, folder)
    finally:
        service.unlink(missing_ok=True)


def _sweep() -> None:
    """Remove what killed runs left: the name has the pid of its run."""
    for service in _SERVICES.glob(f"{_PREFIX}*"):
        owner = service.name.removeprefix(_PREFIX).partition("-")[0]
        with contextlib.suppress(ValueError):
            if not psutil.pid_exists(int(owner, 16)):
                service.unlink(missing_ok=True)
