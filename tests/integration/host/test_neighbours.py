"""Whether other people have accounts on a host, whose accounts and processes the test makes up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jupyman import remote
from tests.bed import Bed

ME = 1234
MINE = f"me:x:{ME}:{ME}::/home/me:/bin/bash\n"
SERVICES = (
    "root:x:0:0:root:/root:/bin/bash\n"
    "sync:x:4:65534:sync:/bin:/bin/sync\n"
    "postgres:x:115:120::/var/lib/postgresql:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    "build:x:2000:2000::/srv:/usr/sbin/nologin\n"
    "git:x:2001:2001::/srv:/usr/bin/git-shell\n"
)
OTHER = "anna:x:1001:1001::/home/anna:/bin/zsh\n"
FILES = "passwd:         files systemd\ngroup: files ldap\n"
# In a mount and a PID namespace of its own. The whole of /etc is replaced: a mount on /etc/passwd itself ends when the
# useradd of another worker renames a new file over it (the kernel then detaches the mount in all namespaces).
INSIDE = r"""
mount --bind "$1/etc" /etc || exit 9
uid=$2
eval "$3"
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups sh "$1/ask"
"""
NOTHING = ":"
AS_ANNA = "setpriv --reuid=1001 --regid=1001 --clear-groups sleep 60 & sleep 0.2"
AS_SERVICE = "setpriv --reuid=115 --regid=120 --clear-groups sleep 60 & sleep 0.2"
SSSD = 'cp "$(command -v sleep)" "$1/sssd_be" && "$1/sssd_be" 60 & sleep 0.2'
HIDDEN = "mount -t proc -o hidepid=2 proc /proc"


@pytest.mark.parametrize(
    ("passwd", "nsswitch", "uid", "before", "alone"),
    [
        pytest.param(SERVICES + MINE, FILES, ME, NOTHING, True, id="programs-and-i"),
        pytest.param(SERVICES, FILES, 0, NOTHING, True, id="a-container-with-root"),
        pytest.param(SERVICES + MINE, "", ME, NOTHING, True, id="no-nsswitch"),
        pytest.param(SERVICES + MINE, "passwd: files sss systemd\n", ME, NOTHING, True, id="sss-that-does-not-run"),
        pytest.param(SERVICES + MINE, FILES, ME, AS_SERVICE, True, id="a-service-runs"),
        pytest.param(SERVICES + MINE + OTHER, FILES, ME, NOTHING, False, id="another-account"),
        pytest.param(SERVICES + OTHER, FILES, 0, NOTHING, False, id="another-account-and-root"),
        pytest.param(SERVICES + MINE + "b:x:1002:1::/:\n", FILES, ME, NOTHING, False, id="no-shell-is-a-shell"),
        pytest.param(SERVICES, FILES, ME, NOTHING, False, id="i-am-of-a-directory"),
        pytest.param(SERVICES + MINE, "passwd: compat [NOTFOUND=return] ldap\n", ME, NOTHING, False, id="ldap"),
        pytest.param(SERVICES + MINE, "passwd: files winbind # x\n", ME, NOTHING, False, id="winbind"),
        pytest.param(SERVICES + MINE, "passwd: files sss\n", ME, SSSD, False, id="sss-that-runs"),
        pytest.param(SERVICES + MINE, FILES, ME, AS_ANNA, False, id="a-process-of-an-account-not-listed"),
        pytest.param(SERVICES + MINE, FILES, ME, HIDDEN, False, id="processes-are-hidden"),
    ],
)
def test_accounts_of_other_people(
    bed: Bed, tmp_path: Path, passwd: str, nsswitch: str, uid: int, before: str, alone: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make up accounts")
    folder = bed.folder / f"etc-{tmp_path.name}"  # others can read it
    etc = folder / "etc"
    etc.mkdir(parents=True)
    if Path("/etc/alternatives").exists():
        shutil.copytree("/etc/alternatives", etc / "alternatives", symlinks=True)  # Debian's awk is a link to there
    (etc / "passwd").write_text(passwd)
    (etc / "nsswitch.conf").write_text(nsswitch)
    (etc / "login.defs").write_text("# UID_MIN 5\nUID_MIN\t\t\t 1000\n")
    functions = map(remote.script, ("lib/common", "lib/server", "lib/neighbours"))
    (folder / "ask").write_text("\n".join([*functions, "jm_alone && echo alone || echo shared"]))
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INSIDE, "sh"]
    ran = subprocess.run(
        [*words, str(folder), str(uid), before], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout == ("alone\n" if alone else "shared\n"), ran
