"""The fixtures that all tests share: a host, a command line, and nothing left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.bed import Bed, Cli, Network, User, private_home

NO_SKIP = "JUPYMAN_TESTS_NO_SKIP"

# The time of one example depends on what else the machine does.
settings.register_profile("jupyman", deadline=None)
settings.load_profile("jupyman")

# A shell's `&` and nohup leave these ignored, and the commands that are tested would inherit that. A handler, unlike
# "ignored", does not pass through exec.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, lambda *_: None)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(scope="session")
def bed() -> Iterator[Bed]:
    """The host: sshd, accounts, conda; one for each worker. Its users' homes are shared by all tests of the worker."""
    with Bed() as made:
        yield made


@pytest.fixture
def fresh_bed(bed: Bed) -> Iterator[Bed]:
    """The bed, whose users run nothing and have fresh homes again after the test."""
    yield bed
    bed.reset()


@pytest.fixture
def user(fresh_bed: Bed) -> User:
    """The bash user, which is `server1` in the SSH config."""
    return fresh_bed.user("bash")


@pytest.fixture
def users(fresh_bed: Bed) -> Callable[[str], User]:
    """The user of a kind; skips the test where this machine cannot have it."""
    return fresh_bed.user


@pytest.fixture
def ssh_config(fresh_bed: Bed) -> Path:
    """A file for JUPYMAN_SSH_CONFIG: `server1` is the bash user, `server-KIND` each other."""
    return fresh_bed.ssh_config


@pytest.fixture
def jupyman_home() -> Iterator[Path]:
    """A fresh JUPYMAN_HOME; its daemon is stopped afterwards."""
    with private_home() as home:
        yield home


@pytest.fixture
def cli(ssh_config: Path, jupyman_home: Path) -> Cli:
    """The real command line in that home, with that SSH config."""
    return Cli(jupyman_home, ssh_config)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of its own, which can be made to drop packets."""
    with Network() as made:
        yield made


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if reporter is not None else 0


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run on a skipped test where none may be; the workers' reports come together in the controller."""
    strict = os.environ.get(NO_SKIP) == "1" and not hasattr(session.config, "workerinput")
    if strict and session.exitstatus == pytest.ExitCode.OK and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why the run failed, when nothing else does."""
    if os.environ.get(NO_SKIP) == "1" and (count := _skipped(config)):
        terminalreporter.section(f"{NO_SKIP}=1", red=True)
        terminalreporter.line(f"{count} skipped above: each counts as a failure")
