"""After a lost link, or the daemon's own loss: find the sessions again and say the truth about them."""

from __future__ import annotations

import logging
import threading
import time

import msgspec

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.hosts import Hosts
from jupyman.core.launchers import nohup
from jupyman.core.sessions import Live, Sessions
from jupyman.core.supervisor import Supervisor
from jupyman.model import Problem
from jupyman.ssh.link import Link

log = logging.getLogger(__name__)

# How often the servers of a host are looked at while its link is up, seconds: a server that died is noticed.
LOOK = 10.0


class Restorer:
    """Keeps what is known of the sessions true.

    Args:
        hosts: their links.
        sessions: the registry.
    """

    def __init__(self, hosts: Hosts, sessions: Sessions) -> None:
        self._hosts = hosts
        self._sessions = sessions
        self._closed = threading.Event()
        self._client = ClientContext()
        self._looking = threading.Lock()
        self._watch = threading.Thread(target=self._run, name="watch servers", daemon=True)

    def start(self, client: ClientContext) -> None:
        """Bind the listeners of all wanted sessions and forwards, and ask for their links.

        Args:
            client: how to log in.
        """
        self._client = client
        hosts: set[str] = set()
        with self._sessions.lock:
            lives = [live for live in self._sessions.live.values() if live.spec.wanted]
            tunnels = list(self._sessions.tunnels.values())
        for live in self._sessions.live.values():
            if not live.spec.wanted:
                live.settled.set()
        for live in lives:
            hosts.add(live.spec.host)
            self._bind(live)
        for spec, listener in tunnels:
            hosts.add(spec.host)
            if listener is None:
                supervisor = self._hosts.supervisor(spec.host, client)
                try:
                    bound = supervisor.forwarder.listen(spec.local_port, (spec.address, spec.port), strict=True)
                except errors.JupymanError as error:
                    log.warning("forward %s of %s: %s", spec.local_port, spec.host, error.message)
                    continue
                with self._sessions.lock:
                    self._sessions.tunnels[(spec.host, spec.local_port)] = (spec, bound)
        for host in hosts:
            self._hosts.supervisor(host, client).want(wanted=True)
        self._watch.start()

    def fresh_client(self, client: ClientContext) -> None:
        """Use the newest way to log in; where it differs, waiting hosts try again at once."""
        key = (client.ssh_auth_sock, client.ssh_config)
        if key in {(None, None), (self._client.ssh_auth_sock, self._client.ssh_config)}:
            return
        self._client = client
        for host, supervisor in self._hosts.all().items():
            if supervisor.status.state == "reconnecting":
                self._hosts.supervisor(host, client)
                supervisor.nudge(client)

    def on_up(self, supervisor: Supervisor) -> None:
        """A link came up: look at each of its sessions."""
        self._look(supervisor)

    def close(self) -> None:
        """End the watching."""
        self._closed.set()

    def _bind(self, live: Live) -> None:
        """Bind the session's local port before its link is there; connections wait."""
        spec = live.spec
        if spec.local_port is None or live.listener is not None:
            return
        supervisor = self._hosts.supervisor(spec.host, self._client)
        try:
            # The target is corrected when the server is found.
            listener = supervisor.forwarder.listen(spec.local_port, ("127.0.0.1", spec.port or spec.local_port), strict=True)
        except errors.JupymanError as error:
            log.warning("session %s: %s", spec.name, error.message)
            live.problems = [
                Problem(
                    code="local-port",
                    severity="warning",
                    text=error.message,
                    fix=f"free the port, then jupyman up {spec.name}",
                )
            ]
            return
        listener.gate = lambda: live.verified
        live.listener = listener

    def _run(self) -> None:
        while not self._closed.wait(LOOK):
            for supervisor in self._hosts.all().values():
                if supervisor.link is not None and self._sessions.on(supervisor.name):
                    self._look(supervisor)

    def _look(self, supervisor: Supervisor) -> None:
        link = supervisor.link
        if link is None:
            return
        for live in self._sessions.on(supervisor.name):
            if live.state == "starting" or (live.state == "exited" and live.running is None):
                continue
            try:
                self._session(supervisor, link, live)
            except errors.JupymanError as error:
                log.info("session %s could not be looked up: %s", live.spec.name, error.message)
            except Exception:
                log.exception("session %s could not be looked up", live.spec.name)

    def _session(self, supervisor: Supervisor, link: Link, live: Live) -> None:
        running = live.running
        if running is None:
            found = nohup.find(link)
            record = next((one for one in found.records if one.name == live.spec.name and one.alive), None)
            if record is None and live.spec.pid is not None:
                record = next((one for one in found.records if one.pid == live.spec.pid and one.alive), None)
            server = record or next((one for one in found.servers if one.pid == live.spec.pid), None)
            if server is None:
                self._exited(supervisor, live, "no server of this session runs on the host any more")
                return
            running = nohup.adopt(link, server, record=False)
        liveness = nohup.verify(link, running)
        if not liveness.ok:
            live.running = running
            self._exited(supervisor, live, liveness.text)
            return
        with self._sessions.lock:
            live.running = running
            live.state = "running"
            live.down_since = None
            if live.listener is not None and running.server.port is not None:
                live.listener.retarget(("127.0.0.1", running.server.port))
            live.verified = True
            live.spec = msgspec.structs.replace(live.spec, pid=running.server.pid)
        live.settled.set()

    def _exited(self, supervisor: Supervisor, live: Live, text: str) -> None:
        log.info("session %s: exited: %s", live.spec.name, text)
        with self._sessions.lock:
            live.state = "exited"
            live.verified = False
            live.problems = [
                Problem(
                    code="server-exited",
                    severity="error",
                    text=text,
                    fix=f"jupyman up {live.spec.name} starts it again; jupyman logs {live.spec.name} shows its end",
                )
            ]
        live.settled.set()
        supervisor.want(wanted=self._sessions.wanted(live.spec.host))


def link_gone(sessions: Sessions, host: str) -> None:
    """Note that a host's link went away: its sessions must be verified again before they carry connections."""
    for live in sessions.on(host):
        live.verified = False
        if live.down_since is None:
            live.down_since = time.monotonic()
