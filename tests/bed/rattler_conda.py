"""What conda, mamba and micromamba do of their own accord when jupyman calls them, with py-rattler as the engine.

`MODE` beside the program's root makes it slow (it waits for the file `go`), chatty, or lets it fail with a text.
"""

import asyncio
import os
import pathlib
import re
import sys
import time
from typing import Any

# Written in here when the program is put into its place.
sys.path.insert(0, "@ENGINE@")
import rattler
import rattler.package_streaming

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main(words: list[str]) -> int:
    mode = (ROOT / "mode").read_text() if (ROOT / "mode").exists() else ""
    if words in (["--version"], ["-V"]):
        print("conda 24.9.2")
        return 0
    if words[:1] == ["-r"]:
        words = words[2:]
    update = words[:2] == ["env", "update"]
    if not update and words[:1] != ["install"]:
        print(f"{sys.argv[0]}: this stand-in does not know: {' '.join(words)}", file=sys.stderr)
        return 2
    words = words[2:] if update else words[1:]
    prefix = pathlib.Path("/nowhere")
    channels: list[str] = []
    specs: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "-p":
            prefix = pathlib.Path(next(rest))
        elif word == "-c":
            channels.append(next(rest))
        elif word == "-f":
            text = pathlib.Path(next(rest)).read_text()
            specs += re.findall(r"^ *- *([^:\s]+) *$", text.partition("dependencies:")[2], re.MULTILINE)
        elif word not in ("-y", "-q", "--override-channels", "--offline"):
            specs.append(word)
    if not (prefix / "conda-meta" / "history").exists():
        print(f"\nEnvironmentLocationNotFound: Not a conda environment: {prefix}\n", file=sys.stderr)
        return 1
    print("Collecting package metadata (repodata.json): ...working... done", flush=True)
    if mode.startswith("slow"):
        print("Solving environment: ...working...", flush=True)
        while not (ROOT / "go").exists():
            time.sleep(0.05)
        print("done", flush=True)
    if mode.startswith("chatty"):
        for number in range(200_000):
            print(f"# All requested packages are being considered, candidate {number}")
    if mode.startswith("fail"):
        print(mode.partition("\n")[2], file=sys.stderr)
        return 1
    return asyncio.run(install(prefix, channels or [(ROOT / "channel").read_text().strip()], specs))


async def install(prefix: pathlib.Path, channels: list[str], specs: list[str]) -> int:
    there = [rattler.PrefixRecord.from_path(path) for path in (prefix / "conda-meta").glob("*.json")]
    files = [spec for spec in specs if spec.startswith("/")]
    if files:
        fresh = [explicit(pathlib.Path(path)) for path in files]
        names = {record.name.normalized for record in fresh}
        records = [record for record in there if record.name.normalized not in names] + fresh
    else:
        # What is there stays, as conda keeps what its history names.
        named = {re.split(r"[=<>! ]", spec, maxsplit=1)[0] for spec in specs}
        kept = [f"{one.name.normalized} =={one.version}" for one in there if one.name.normalized not in named]
        try:
            records = await rattler.solve(
                [rattler.Channel(channel) for channel in channels],
                [rattler.MatchSpec(spec) for spec in [*specs, *kept]],
                locked_packages=there,
                platforms=[rattler.Subdir("noarch"), rattler.Subdir("linux-64")],
            )
        except Exception as error:
            print(f"\n{type(error).__name__}: {error}\n", file=sys.stderr)
            return 1
    await rattler.install(records, prefix, cache_dir=ROOT / "pkgs", show_progress=False)
    print("Preparing transaction: done\nVerifying transaction: done\nExecuting transaction: done")
    return 0


def explicit(path: pathlib.Path) -> Any:
    """A package file without a channel, as `conda install FILE` takes it."""
    folder = ROOT / "pkgs" / re.sub(r"\.(conda|tar\.bz2)$", "", path.name)
    rattler.package_streaming.extract(path, folder)
    record = rattler.PackageRecord.from_index_json(folder / "info" / "index.json")
    return rattler.RepoDataRecord(record, path.name, path.as_uri(), path.parent.as_uri())


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # The engine's threads are not always through when Python ends, which then aborts.
    os._exit(status)
