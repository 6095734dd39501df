"""Runtime files of Jupyter servers, and the configuration that we give them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from jupyman import rules

DEFAULT_KERNEL_LINE = '_kernel = ""  # jupyman: default kernel\n'


class RuntimeFile(msgspec.Struct, frozen=True):
    """``jpserver-PID.json`` (jupyter_server, serverapp.py: server_info) or notebook 6's ``nbserver-PID.json``."""

    pid: int
    port: int = 0
    base_url: str = "/"
    token: str = ""
    hostname: str = ""
    password: bool = False
    secure: bool = False
    sock: str | None = ""
    root_dir: str | None = None
    notebook_dir: str | None = None
    version: str | None = None

    @property
    def directory(self) -> str | None:
        """The root directory; notebook 6 has it as notebook_dir."""
        return self.root_dir or self.notebook_dir


def parse_runtime(text: str) -> RuntimeFile | None:
    """Read a runtime file.

    Args:
        text: its content; line breaks may have been removed.

    Returns:
        Its content, None when it is not such a file (incomplete, of a future version).
    """
    try:
        return msgspec.json.decode(text, type=RuntimeFile)
    except msgspec.DecodeError:
        return None


@dataclass(frozen=True)
class ListeningAddress:
    """A listening TCP address."""

    address: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.address.startswith("127.") or self.address in {"::1", "localhost"}

    @property
    def from_loopback(self) -> bool:
        """Whether a connection to 127.0.0.1 reaches it."""
        return self.address in {"127.0.0.1", "0.0.0.0", "::", "*"}  # noqa: S104 - compared, not bound


def parse_listen(text: str) -> ListeningAddress | None:
    """Read an address in the form of ``/proc/net/tcp`` (proc_net_tcp(5): hexadecimal, host byte order) or of lsof.

    Args:
        text: like ``0100007F:22B8`` or ``127.0.0.1:8888`` or ``[::1]:8888``.

    Returns:
        Address and port, None for other text.
    """
    address, _, port = text.strip().rpartition(":")
    if re.fullmatch(r"[0-9A-F]{8}|[0-9A-F]{32}", address) and re.fullmatch(r"[0-9A-F]{4}", port):
        words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
        return ListeningAddress(_ip(b"".join(words)), int(port, 16))
    if address and port.isascii() and port.isdigit() and int(port) < 65536:
        return ListeningAddress(address.strip("[]"), int(port))
    return None


def _ip(raw: bytes) -> str:
    from ipaddress import ip_address

    address = ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def configuration(template: str, default_kernel: str | None) -> str:
    """Complete remote/servers/jupyter_config.py.

    Args:
        template: its text.
        default_kernel: the kernel of new notebooks, None for Jupyter's own choice.

    Returns:
        The text for the session's directory.
    """
    if template.count(DEFAULT_KERNEL_LINE) != 1:
        raise ValueError(DEFAULT_KERNEL_LINE)
    return template.replace(DEFAULT_KERNEL_LINE, f"_kernel = {default_kernel or ''!r}\n")


def token(text: str | None) -> str | None:
    """Return a token of ours (launch.sh, renew.sh: 24 random bytes as hexadecimal digits), None for other text."""
    return text if text is not None and re.fullmatch(r"[0-9a-f]{48}", text) else None


def valid_name(name: str) -> bool:
    """Return whether a session's name is safe as a directory name on every host."""
    return rules.is_session_name(name)


def base_url(text: str | None) -> str:
    """Return a base URL that starts and ends with a slash."""
    inner = (text or "").strip("/")
    return f"/{inner}/" if inner else "/"
