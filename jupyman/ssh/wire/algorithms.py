"""Which ciphers and MACs we offer, in which order."""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
CTR = ("aes128-ctr", "aes192-ctr", "aes256-ctr")
# As OpenSSH orders them (myproposal.h): encrypt first, then MAC, so that nothing is decrypted before it is verified.
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
_SAMPLE = 32768  # bytes: one packet


def ciphers(offered: Iterable[str]) -> tuple[str, ...]:
    """Order ciphers: AES-GCM first if this computer is fast at it, else AES-CTR; paramiko lists GCM last.

    Args:
        offered: by paramiko.
    """
    return _first((*GCM, *CTR) if gcm_is_fast() else (*CTR, *GCM), offered)


def macs(offered: Iterable[str]) -> tuple[str, ...]:
    """Order MACs; argument as for `ciphers`."""
    return _first(MACS, offered)


def _first(wanted: tuple[str, ...], offered: Iterable[str]) -> tuple[str, ...]:
    every = tuple(offered)
    return (*(one for one in wanted if one in every), *(one for one in every if one not in wanted))


@functools.cache
def gcm_is_fast() -> bool:
    """Whether one packet takes AES-GCM less time than AES-CTR with HMAC-SHA256.

    With the CPU's own instructions GCM takes a fifth; without them its multiplications are done bit by bit.
    """
    key, iv, text = os.urandom(16), os.urandom(16), bytes(_SAMPLE)
    gcm = AESGCM(key)
    ctr = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()

    def classic() -> None:
        hmac.digest(key, ctr.update(text), hashlib.sha256)

    return _seconds(lambda: gcm.encrypt(iv[:12], text, None)) < _seconds(classic)


def _seconds(action: Callable[[], object]) -> float:
    """Return the shortest of a few tries: another program may have had the CPU in the others."""
    took = []
    for _ in range(4):
        start = time.perf_counter()
        action()
        took.append(time.perf_counter() - start)
    return min(took)
