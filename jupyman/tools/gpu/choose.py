"""`--gpu`: its grammar, and the GPUs that it selects on a host."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from jupyman import errors, rules
from jupyman.model import Gpu, GpuProcess, MigInstance
from jupyman.tools.host.text import clean

GIB = 1024**3
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": GIB, "k": 1024, "m": 1024**2, "g": GIB, "t": 1024**4}
_SLICE = re.compile(r"[0-9]+g\.([0-9]+)gb")  # the memory in the name of a MIG instance
_UUID = r"(?:GPU|MIG)-[0-9A-Za-z/-]{4,80}"
_HINT = "--gpu takes auto | none | 0,1 | GPU-UUID,… | any:2 | free:20G"


@dataclass(frozen=True)
class Choice:
    """GPUs for a server.

    Attributes:
        indices: of the GPUs; None: CUDA_VISIBLE_DEVICES is not set.
        visible: the text for CUDA_VISIBLE_DEVICES: UUIDs, because the meaning of an index depends on CUDA_DEVICE_ORDER.
        reason: for people: which and why.
        shared: for people: who else uses them.
    """

    indices: list[int] | None
    visible: str | None
    reason: str
    shared: str | None = None


@dataclass(frozen=True)
class GpuSpec:
    """A parsed `--gpu`; `kind` selects which of the other fields applies; `free` is in bytes."""

    kind: Literal["auto", "none", "indices", "uuids", "any", "free"]
    indices: tuple[int, ...] = ()
    uuids: tuple[str, ...] = ()
    count: int = 1
    free: int = 0


def parse(text: str) -> GpuSpec:
    """Read a SPEC.

    Args:
        text: ``auto | none | 0,1 | UUID,… | any:2 | free:20G``; ``free>=20G`` means the same (it must be quoted in a
            shell). A size without a unit is in GiB.

    Raises:
        UsageFault: it is not one.
    """
    word = text.strip()
    if word in {"auto", "none"}:
        return GpuSpec(kind="auto" if word == "auto" else "none")
    if re.fullmatch(r"[0-9]{1,3}(,[0-9]{1,3})*", word, re.ASCII):
        return GpuSpec(kind="indices", indices=tuple(dict.fromkeys(int(part) for part in word.split(","))))
    if re.fullmatch(rf"{_UUID}(,{_UUID})*", word):
        return GpuSpec(kind="uuids", uuids=tuple(dict.fromkeys(word.split(","))))
    many = re.fullmatch(r"any:([1-9][0-9]?)", word)
    if many is not None:
        return GpuSpec(kind="any", count=int(many[1]))
    room = re.fullmatch(r"free(?::|>=)(.+)", word)
    amount = _SIZE.fullmatch(room[1].strip()) if room is not None else None
    if amount is not None:
        return GpuSpec(kind="free", free=int(float(amount[1]) * _UNITS[amount[2].lower()]))
    raise errors.UsageFault(f"{clean(text, 60)!r} is not a choice of GPUs", _HINT)


def choose(spec: GpuSpec, gpus: Sequence[Gpu], claimed: Container[int] = ()) -> Choice:
    """Choose GPUs.

    Args:
        spec: from `parse`.
        gpus: of the host, with their present use.
        claimed: indices of those that other sessions of this account have; avoided if there is a choice.

    Returns:
        The choice; ``none`` gives an empty text; ``auto`` on a host without GPUs sets nothing.

    Raises:
        UsageFault: the host has no such GPU, or not enough of them, or not enough memory is free.
    """
    if spec.kind == "none":
        return Choice([], "", "no GPU for the server")
    if not gpus and spec.kind == "auto":
        return Choice(None, None, "no GPU was seen on the host: nothing is set")
    if spec.kind == "indices":
        by_index = {gpu.index: gpu for gpu in gpus}
        missing = [index for index in spec.indices if index not in by_index]
        if missing:
            raise errors.UsageFault(f"the host has no GPU {missing[0]}", f"available: {_list(gpus)}")
        return _result([by_index[index] for index in spec.indices], "as asked", instances=False)
    if spec.kind == "uuids":
        return _by_uuid(spec.uuids, gpus)

    def rank(gpu: Gpu) -> tuple[bool, bool, bool, int, int]:
        # CUDA uses only one instance of a card in MIG mode, so whole cards come first; then those that nobody else
        # uses, those that no other session has, by free memory, by index.
        return bool(gpu.mig), bool(others(gpu)), gpu.index in claimed, -(_free(gpu) or 0), gpu.index

    # A card in MIG mode without instances cannot be used; if no card has any, the lists could not be read.
    listed = any(gpu.instances for gpu in gpus)
    ranked = sorted((gpu for gpu in gpus if not gpu.mig or gpu.instances or not listed), key=rank)
    if spec.kind == "free":
        enough = [gpu for gpu in ranked if (_free(gpu) or 0) >= spec.free]
        if not enough:
            raise errors.UsageFault(f"no GPU has {rules.size(spec.free)} free", f"available: {_list(gpus)}")
        return _result(enough[:1], f"has {rules.size(spec.free)} free{_why(enough[:1], claimed)}")
    if len(ranked) < spec.count:
        usable = "GPUs" if len(ranked) == len(gpus) else "usable GPUs"
        raise errors.UsageFault(f"the host has {len(ranked)} {usable}, not {spec.count}", f"available: {_list(gpus)}")
    chosen = ranked[: spec.count]
    return _result(chosen, f"the most free memory{_why(chosen, claimed)}")


def others(gpu: Gpu) -> list[GpuProcess]:
    """Return the processes of other accounts on a GPU, including accounts that cannot be seen."""
    return [process for process in gpu.processes if not process.ours]


def who(process: GpuProcess) -> str:
    """Describe a process on a GPU.

    Args:
        process: of another account.
    """
    if process.user is None:
        return f"PID {process.pid} (another container or a user that cannot be seen)"
    return f"{process.user} (pid {process.pid})"


def held(process: GpuProcess) -> str:
    """Describe a process on a GPU with the memory that it holds."""
    return who(process) + (f", {rules.size(process.memory)}" if process.memory is not None else "")


def _why(chosen: Sequence[Gpu], claimed: Container[int]) -> str:
    if any(others(gpu) for gpu in chosen):
        return ", though others use it"
    if any(gpu.index in claimed for gpu in chosen):
        return ", though another session of yours has it"
    return ", nobody else uses it"


def _by_uuid(uuids: Sequence[str], gpus: Sequence[Gpu]) -> Choice:
    """Choose by UUID: CUDA accepts a unique beginning of a card's UUID, and only the whole UUID of an instance."""
    chosen: list[Gpu] = []
    visible: list[str] = []
    known = {one.uuid.lower(): gpu for gpu in gpus for one in gpu.instances}
    for uuid in uuids:
        if uuid.startswith("MIG-"):
            card = known.get(uuid.lower())
            if card is None and known and "/" not in uuid:
                there = ", ".join(f"{one.uuid} ({one.name})" for gpu in gpus for one in gpu.instances)
                raise errors.UsageFault(f"the host has no MIG instance {uuid}", f"it has {there}")
            if card is not None and card not in chosen:
                chosen.append(card)
            visible.append(uuid)
            continue
        fitting = [gpu for gpu in gpus if gpu.uuid is not None and gpu.uuid.lower().startswith(uuid.lower())]
        if len(fitting) != 1 or fitting[0].uuid is None:
            many = "has no GPU" if not fitting else "has several GPUs that start with"
            there = ", ".join(gpu.uuid or "?" for gpu in gpus)
            raise errors.UsageFault(f"the host {many} {uuid}", f"it has {there or 'none'}")
        if fitting[0] not in chosen:
            chosen.append(fitting[0])
            visible.append(fitting[0].uuid)
    reason = f"GPU {', '.join(visible)}: as asked"
    return Choice([gpu.index for gpu in chosen], ",".join(visible), reason, _shared(chosen))


def _result(chosen: Sequence[Gpu], reason: str, *, instances: bool = True) -> Choice:
    parts = [_largest(gpu) if instances else None for gpu in chosen]
    visible = [part.uuid if part else gpu.uuid or str(gpu.index) for gpu, part in zip(chosen, parts, strict=True)]
    shown = [
        f"{gpu.index} ({gpu.name or 'unknown'}{f', instance {part.name}' if part else ''}{_room(gpu)})"
        for gpu, part in zip(chosen, parts, strict=True)
    ]
    return Choice(
        [gpu.index for gpu in chosen], ",".join(visible), f"GPU {', '.join(shown)}: {reason}", _shared(chosen)
    )


def _largest(gpu: Gpu) -> MigInstance | None:
    """Return the largest instance of a card in MIG mode."""

    def room(one: MigInstance) -> int:
        found = _SLICE.match(one.name)
        return int(found[1]) if found is not None else 0

    return max(gpu.instances, key=room, default=None) if gpu.mig else None


def _shared(chosen: Sequence[Gpu]) -> str | None:
    texts = [
        f"GPU {gpu.index} is used by {', '.join(who(one) for one in there[:3])}"
        for gpu in chosen
        if (there := others(gpu))
    ]
    return "; ".join(texts) or None


def _free(gpu: Gpu) -> int | None:
    if gpu.memory_total is None or gpu.memory_used is None:
        return None
    return gpu.memory_total - gpu.memory_used


def _room(gpu: Gpu) -> str:
    free = _free(gpu)
    return f", {rules.size(free)} free" if free is not None else ""


def _list(gpus: Sequence[Gpu]) -> str:
    return ", ".join(f"GPU {gpu.index}{_room(gpu)}" for gpu in gpus) or "none"
