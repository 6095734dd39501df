"""`env mirror`: where an account's conda and pip get packages from; what the user wrote stays, and comes back."""

from __future__ import annotations

import difflib

from jupyman import api, errors
from jupyman.api import Operation, Output, Prompt
from jupyman.api.results import Mirrors, MirrorStatus, MirrorsWritten
from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime.progress import step
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.core.verbs.host import connect
from jupyman.host.shell import script
from jupyman.host.shell.jobs import libraries
from jupyman.host.shell.script import Shell
from jupyman.model import Noun
from jupyman.tools.host.text import clean
from jupyman.tools.install import mirrors
from jupyman.tools.install.mirrors import Mirror

LIMIT = 8  # seconds for an answer
TIMEOUT = 30.0
_MARK = "\N{REPLACEMENT CHARACTER}"


class _MirrorFile(Noun, frozen=True, kw_only=True):
    name: str
    path: str
    state: str
    total: str
    text: str
    kept: str | None  # what was there before: None where nothing was ever changed
    changed: bool  # by us, and not yet put back


def ls(request: api.EnvMirrorLs, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation) -> Mirrors:
    """List the mirrors, and how fast the host reaches each."""
    del request, sessions
    link = connect(host, hosts, operation)
    return _list(link, _read(link), list(mirrors.every(hosts.config.mirrors).values()), operation)


def mirror(
    request: api.EnvMirror, host: str, hosts: Hosts, sessions: SessionRegistry, operation: Operation
) -> MirrorsWritten:
    """Write a mirror into the host's files, or restore what was there before.

    Raises:
        UsageFault: no such mirror, a file that cannot be edited, or nobody can be asked.
        NotOurs: a file belongs to another user.
        RemoteFailed: a file cannot be written.
        Interrupted: the answer was no.
    """
    del sessions
    own = hosts.config.mirrors
    chosen = mirrors.find(request.name or "", own) if request.action == "use" else None
    link = connect(host, hosts, operation)
    files = _read(link)
    known = list(mirrors.every(own).values())
    changes: list[tuple[_MirrorFile, str]] = []
    for file in files:
        fresh = _after(file, chosen, known)
        if fresh is not None and (fresh != file.text or (file.changed and chosen is None)):
            if file.state == "foreign":
                raise errors.NotOurs(f"{file.path} belongs to another user, or cannot be written", "ask its owner")
            changes.append((file, fresh))
    if not changes:
        return MirrorsWritten(mirror=request.name, changed=[])
    for file, fresh in changes:
        for line in _diff(file, fresh):
            operation.emit(Output(line=line))
    _confirm(request, operation, host, len(changes))
    with step(operation, "write", "writing") as progress:
        for file, fresh in changes:
            _write(link, file, fresh, reset=chosen is None)
        progress.text = f"{', '.join(file.path for file, _ in changes)}: " + (
            f"{chosen.name} is used" if chosen is not None else "as before"
        )
    if chosen is not None:
        _say_reach(link, chosen, operation)
    return MirrorsWritten(mirror=request.name, changed=[file.path for file, _ in changes])


def _after(file: _MirrorFile, chosen: Mirror | None, known: list[Mirror]) -> str | None:
    """Return what a file shall hold; None where it is left alone."""
    if chosen is None:
        return file.kept if file.changed else None
    if _MARK in file.text:
        raise errors.UsageFault(f"{file.path} is not written in UTF-8", "edit it by hand")
    try:
        if file.name == "pip":
            return mirrors.pip_conf(file.text, chosen)
        # What micromamba alone reads is changed only where it says something of channels.
        if file.name == "mambarc" and "channels" not in file.text:
            return None
        return mirrors.condarc(file.text, chosen, known)
    except errors.UsageFault as error:
        raise errors.UsageFault(f"{file.path}: {error.message}", error.hint) from error


def _diff(file: _MirrorFile, fresh: str) -> list[str]:
    lines = difflib.unified_diff(
        file.text.splitlines(), fresh.splitlines(), fromfile=file.path, tofile=file.path, lineterm="", n=2
    )
    return [clean(line, 500) for line in lines]


def _read(shell: Shell) -> list[_MirrorFile]:
    facts = script.run(shell, "envs/mirror_look", {"SERVER": libraries()["SERVER"]}, timeout=TIMEOUT)
    kept = {one.one("name"): one.all("line") for one in facts.records("kept", "name")}
    found = []
    for record in facts.records("file", "name"):
        name = record.one("name") or ""
        state = record.one("kept")
        found.append(
            _MirrorFile(
                name=name,
                path=record.one("path") or "",
                state=record.one("state") or "foreign",
                total=record.one("sum") or "",
                text=_text(record.all("line")),
                kept=_text(kept.get(name, [])) if state == "backup" else "" if state == "absent" else None,
                changed=state is not None,
            )
        )
    return found


def _text(lines: list[str]) -> str:
    """Put lines together that each end in a mark."""
    return "".join(f"{line.removesuffix('|')}\n" for line in lines)


def _write(shell: Shell, file: _MirrorFile, text: str, *, reset: bool) -> None:
    script.run(
        shell,
        "envs/mirror_write",
        {
            "SERVER": libraries()["SERVER"],
            "PATH": file.path,
            "SUM": file.total,
            "TEXT": text,
            "DO": "reset" if reset else "use",
        },
        timeout=TIMEOUT,
    )


def _confirm(request: api.EnvMirror, operation: Operation, host: str, count: int) -> None:
    if request.yes:
        return
    if not operation.client.interactive:
        raise errors.UsageFault("a question must be answered, and stdin is no terminal", "say -y to answer yes")
    text = f"Write {'this change' if count == 1 else 'these changes'} on {host}?"
    if operation.ask(Prompt(id="", kind="confirm", text=text, default="y")).lower() not in {"y", "yes"}:
        raise errors.Interrupted("nothing was written")


# --- reach ----------------------------------------------------------------------------------------------------------


def _reach(shell: Shell, known: list[Mirror]) -> dict[str, float]:
    """Return the seconds until each address answered: keys NAME.conda and NAME.pip; missing where it did not."""
    urls = []
    for one in known:
        if one.conda is not None:
            urls.append(f"{one.name}.conda {one.conda.rstrip('/')}/cloud/conda-forge/noarch/repodata.json")
        if one.pip is not None:
            # file: addresses have no directories to ask for.
            page = "index.html" if one.pip.startswith("file:") else ""
            urls.append(f"{one.name}.pip {one.pip.rstrip('/')}/pip/{page}")
    facts = script.run(
        shell, "envs/mirror_test", {"URLS": "\n".join(urls), "LIMIT": str(LIMIT)}, timeout=LIMIT + TIMEOUT
    )
    found: dict[str, float] = {}
    for line in facts.all("reach"):
        key, _, number = line.partition(" ")
        if number.isascii() and number.isdigit():
            found[key] = int(number) / 1000
    return found


def _list(shell: Shell, files: list[_MirrorFile], known: list[Mirror], operation: Operation) -> Mirrors:
    with step(operation, "reach", "asking each mirror from there") as progress:
        seconds = _reach(shell, known)
        told = [
            MirrorStatus(
                name=one.name,
                conda=one.conda,
                pip=one.pip,
                own=one.own,
                conda_seconds=seconds.get(f"{one.name}.conda"),
                pip_seconds=seconds.get(f"{one.name}.pip"),
            )
            for one in known
        ]
        asked = sum((one.conda is not None) + (one.pip is not None) for one in known)
        progress.text = f"{len(seconds)} of {asked} addresses answer"
    # The fastest is one that has all that it offers.
    whole = [
        (max(one.conda_seconds or 0.0, one.pip_seconds or 0.0), one.name)
        for one in told
        if (one.conda is None or one.conda_seconds is not None) and (one.pip is None or one.pip_seconds is not None)
    ]
    text = "\n".join(file.text for file in files)
    used = [one.name for one in known if any(url.rstrip("/") in text for url in (one.conda, one.pip) if url)]
    return Mirrors(mirrors=told, used=used, fastest=min(whole)[1] if whole else None)


def _say_reach(shell: Shell, chosen: Mirror, operation: Operation) -> None:
    with step(operation, "reach", f"asking {chosen.name} from there") as progress:
        wanted = {key for key, url in ((".conda", chosen.conda), (".pip", chosen.pip)) if url is not None}
        silent = sorted(key[1:] for key in wanted if f"{chosen.name}{key}" not in _reach(shell, [chosen]))
        progress.text = f"{chosen.name} answers"
        if silent:
            progress.warn(f"{chosen.name} is written, but does not answer from there for {' and '.join(silent)}")
