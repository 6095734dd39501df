"""`env mirror`: where conda and pip of an account get packages from; what the user wrote can be restored."""

from __future__ import annotations

import difflib

from jupyman import api, errors
from jupyman.api.results import Mirrors, MirrorStatus, MirrorsWritten
from jupyman.core.verbs.host_call import HostCall
from jupyman.model import Noun
from jupyman.tools.host.text import clean
from jupyman.tools.install import mirrors
from jupyman.tools.install.mirrors import Mirror

ANSWER_LIMIT = 8  # seconds for a mirror's answer
TIMEOUT = 30.0  # seconds for a script
_NOT_UTF8 = "\N{REPLACEMENT CHARACTER}"


class _MirrorFile(Noun, frozen=True, kw_only=True):
    name: str
    path: str
    state: str
    total: str
    text: str
    kept: str | None  # what was there before: None if nothing was ever changed
    changed: bool  # by us, and not restored since


def ls(request: api.EnvMirrorLs, call: HostCall) -> Mirrors:
    """List the mirrors, and how fast the host reaches each."""
    del request
    call.connect()
    return _list(call, _read(call), list(mirrors.every(call.hosts.config.mirrors).values()))


def mirror(request: api.EnvMirror, call: HostCall) -> MirrorsWritten:
    """Use a mirror, or restore what was there before.

    Raises:
        UsageFault: no such mirror, a file that cannot be edited, or nobody can be asked.
        NotOurs: a file belongs to another user.
        RemoteFailed: a file cannot be written.
        Interrupted: the answer was no.
    """
    own = call.hosts.config.mirrors
    chosen = mirrors.find(request.name or "", own) if request.action == "use" else None
    known = list(mirrors.every(own).values())
    call.connect()
    files = _read(call)
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
            call.output(line)
    what = "this change" if len(changes) == 1 else "these changes"
    if not request.yes and not call.confirm(f"Write {what} on {call.host}?", default="y"):
        raise errors.Interrupted("nothing was written")
    with call.step("write", "writing") as progress:
        for file, fresh in changes:
            _write(call, file, fresh, reset=chosen is None)
        paths = ", ".join(file.path for file, _ in changes)
        progress.text = f"{paths}: uses {chosen.name}" if chosen is not None else f"{paths}: restored"
    if chosen is not None:
        _report_reach(call, chosen)
    return MirrorsWritten(mirror=request.name, changed=[file.path for file, _ in changes])


def _after(file: _MirrorFile, chosen: Mirror | None, known: list[Mirror]) -> str | None:
    """Return a file's new text; None when the file is left alone."""
    if chosen is None:
        return file.kept if file.changed else None
    if _NOT_UTF8 in file.text:
        raise errors.UsageFault(f"{file.path} is not written in UTF-8", "edit it by hand")
    try:
        if file.name == "pip":
            return mirrors.pip_conf(file.text, chosen)
        # The file that only micromamba reads is changed only if it sets channels.
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


def _read(call: HostCall) -> list[_MirrorFile]:
    facts = call.script("envs/mirror_look", {}, timeout=TIMEOUT)
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
    """Join lines that each end in a mark."""
    return "".join(f"{line.removesuffix('|')}\n" for line in lines)


def _write(call: HostCall, file: _MirrorFile, text: str, *, reset: bool) -> None:
    arguments = {"PATH": file.path, "SUM": file.total, "TEXT": text, "DO": "reset" if reset else "use"}
    call.script("envs/mirror_write", arguments, timeout=TIMEOUT)


# --- reach ----------------------------------------------------------------------------------------------------------


def _reach(call: HostCall, known: list[Mirror]) -> dict[str, float]:
    """Return the seconds until each address answered, by NAME.conda and NAME.pip; those that did not are missing."""
    urls = []
    for one in known:
        if one.conda is not None:
            urls.append(f"{one.name}.conda {one.conda.rstrip('/')}/cloud/conda-forge/noarch/repodata.json")
        if one.pip is not None:
            # file: addresses have no directories to ask for.
            page = "index.html" if one.pip.startswith("file:") else ""
            urls.append(f"{one.name}.pip {one.pip.rstrip('/')}/pip/{page}")
    arguments = {"URLS": "\n".join(urls), "LIMIT": str(ANSWER_LIMIT)}
    facts = call.script("envs/mirror_test", arguments, timeout=ANSWER_LIMIT + TIMEOUT)
    found: dict[str, float] = {}
    for line in facts.all("reach"):
        key, _, number = line.partition(" ")
        if number.isascii() and number.isdigit():
            found[key] = int(number) / 1000
    return found


def _list(call: HostCall, files: list[_MirrorFile], known: list[Mirror]) -> Mirrors:
    with call.step("reach", f"asking each mirror from {call.host}") as progress:
        seconds = _reach(call, known)
        seen = [
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
    # The fastest is one of which every address answers.
    complete = [
        (max(one.conda_seconds or 0.0, one.pip_seconds or 0.0), one.name)
        for one in seen
        if (one.conda is None or one.conda_seconds is not None) and (one.pip is None or one.pip_seconds is not None)
    ]
    text = "\n".join(file.text for file in files)
    used = [one.name for one in known if any(url.rstrip("/") in text for url in (one.conda, one.pip) if url)]
    return Mirrors(mirrors=seen, used=used, fastest=min(complete)[1] if complete else None)


def _report_reach(call: HostCall, chosen: Mirror) -> None:
    with call.step("reach", f"asking {chosen.name} from {call.host}") as progress:
        urls = {"conda": chosen.conda, "pip": chosen.pip}
        answered = _reach(call, [chosen])
        silent = [kind for kind, url in urls.items() if url is not None and f"{chosen.name}.{kind}" not in answered]
        progress.text = f"{chosen.name} answers"
        if silent:
            progress.warn(f"{chosen.name} is configured, but does not answer to {call.host} for {' and '.join(silent)}")
