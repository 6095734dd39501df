"""`--gpu`: its grammar, and which GPUs it means on this host."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jupyman import errors
from jupyman.model import Gpu
from jupyman.tools.text import clean

GIB = 1024**3
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": GIB, "k": 1024, "m": 1024**2, "g": GIB, "t": 1024**4}
_UUID = r"(?:GPU|MIG)-[0-9A-Za-z/-]{4,80}"
_HINT = "--gpu takes auto | none | 0,1 | GPU-UUID,… | any:2 | free:20G"


@dataclass(frozen=True)
class GpuSpec:
    """A wish: `kind` says which of the other fields counts; `free` is in bytes."""

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
        UsageFault: it is none.
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
    size = _SIZE.fullmatch(room[1].strip()) if room is not None else None
    if size is not None:
        return GpuSpec(kind="free", free=int(float(size[1]) * _UNITS[size[2].lower()]))
    raise errors.UsageFault(f"{clean(text, 60)!r} does not say which GPU", _HINT)


def choose(spec: GpuSpec, gpus: Sequence[Gpu]) -> tuple[list[int] | None, str | None, str]:
    """Choose GPUs.

    Args:
        spec: the wish.
        gpus: of the host, with what is used on them now.

    Returns:
        Indices, the text for CUDA_VISIBLE_DEVICES (UUIDs: what an index means depends on CUDA_DEVICE_ORDER), and the
        reason in words. ``none`` gives an empty text; ``auto`` on a host without GPUs gives None: nothing is set.

    Raises:
        UsageFault: the host has no such GPU, or not enough of them, or not enough memory is free.
    """
    if spec.kind == "none":
        return [], "", "no GPU for the server"
    if not gpus and spec.kind == "auto":
        return None, None, "no GPU was seen on the host: nothing is set"
    if spec.kind == "indices":
        by_index = {gpu.index: gpu for gpu in gpus}
        missing = [index for index in spec.indices if index not in by_index]
        if missing:
            raise errors.UsageFault(f"the host has no GPU {missing[0]}", f"it has {_list(gpus)}")
        return _result([by_index[index] for index in spec.indices], "as asked")
    if spec.kind == "uuids":
        return _by_uuid(spec.uuids, gpus)
    # CUDA uses only the first instance of a card in MIG mode, so whole cards first; then unused ones; then by free
    # memory; the index settles a tie.
    ranked = sorted(gpus, key=lambda gpu: (bool(gpu.mig), bool(gpu.processes), -(_free(gpu) or 0), gpu.index))
    if spec.kind == "free":
        enough = [gpu for gpu in ranked if (_free(gpu) or 0) >= spec.free]
        if not enough:
            raise errors.UsageFault(f"no GPU has {_size(spec.free)} free", f"there is {_list(gpus)}")
        return _result(enough[:1], f"has {_size(spec.free)} free")
    if len(ranked) < spec.count:
        raise errors.UsageFault(f"the host has {len(ranked)} GPUs, not {spec.count}", f"there is {_list(gpus)}")
    chosen = ranked[: spec.count]
    return _result(chosen, "in use by others, but the freest" if any(gpu.processes for gpu in chosen) else "the freest")


def _by_uuid(uuids: Sequence[str], gpus: Sequence[Gpu]) -> tuple[list[int], str, str]:
    """CUDA takes the first letters of a UUID where they are enough; MIG instances it must check itself."""
    chosen: list[int] = []
    visible: list[str] = []
    for uuid in uuids:
        if uuid.startswith("MIG-"):
            visible.append(uuid)
            continue
        fitting = [gpu for gpu in gpus if gpu.uuid is not None and gpu.uuid.lower().startswith(uuid.lower())]
        if len(fitting) != 1 or fitting[0].uuid is None:
            many = "has no GPU" if not fitting else "has several GPUs that start with"
            there = ", ".join(gpu.uuid or "?" for gpu in gpus)
            raise errors.UsageFault(f"the host {many} {uuid}", f"it has {there or 'none'}")
        if fitting[0].index not in chosen:
            chosen.append(fitting[0].index)
            visible.append(fitting[0].uuid)
    return chosen, ",".join(visible), f"GPU {', '.join(visible)}: as asked"


def _result(chosen: Sequence[Gpu], reason: str) -> tuple[list[int], str, str]:
    visible = ",".join(gpu.uuid or str(gpu.index) for gpu in chosen)
    shown = ", ".join(f"{gpu.index} ({gpu.name or 'unknown'}{_room(gpu)})" for gpu in chosen)
    return [gpu.index for gpu in chosen], visible, f"GPU {shown}: {reason}"


def _free(gpu: Gpu) -> int | None:
    if gpu.memory_total is None or gpu.memory_used is None:
        return None
    return gpu.memory_total - gpu.memory_used


def _size(count: int) -> str:
    return f"{count / GIB:.3g} GiB" if count >= GIB else f"{count / 1024**2:.3g} MiB"


def _room(gpu: Gpu) -> str:
    free = _free(gpu)
    return f", {_size(free)} free" if free is not None else ""


def _list(gpus: Sequence[Gpu]) -> str:
    return ", ".join(f"GPU {gpu.index}{_room(gpu)}" for gpu in gpus) or "none"
