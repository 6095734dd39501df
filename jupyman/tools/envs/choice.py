"""PURE: choose the environments of a session."""

from __future__ import annotations

from jupyman import errors
from jupyman.model import App, Environment, HostReport
from jupyman.tools.envs import discovery


def choose(
    report: HostReport, wanted: str | None, default: str | None, app: App
) -> tuple[Environment, Environment | None]:
    """Choose the environment that the server runs in and the one that the user works in.

    Args:
        report: of the host; its environments are in order of preference.
        wanted: named by the user for this session.
        default: of config.toml; unlike `wanted` it need not exist on this host.
        app: that must be able to run.

    Returns:
        The server's environment, and the working one when it differs (its kernel must be registered).

    Raises:
        EnvironmentMissing: no environment `wanted`.
        UsageFault: several environments have that name.
        JupyterMissing: none can run Jupyter.
    """
    environments = report.environments
    working: Environment | None = None
    if wanted is not None:
        working = discovery.find(environments, wanted, report.home)
    elif default is not None:
        try:
            working = discovery.find(environments, default, report.home)
        except errors.EnvironmentMissing:
            working = None
    able = [one for one in environments if app in one.apps]
    if working is not None and working in able:
        return working, None
    own = [one for one in able if not one.lodger]
    if own:
        return own[0], working
    if able:
        name = able[0].name or able[0].prefix
        raise errors.JupyterMissing(
            f"no environment of {report.host} can run Jupyter {app} except {name}, which another user made",
            f"use --env {name} if you trust that user, or install Jupyter in an environment of your own",
        )
    others = sorted({other for one in environments for other in one.apps})
    if others:
        raise errors.JupyterMissing(
            f"no environment of {report.host} can run Jupyter {app}", f"use --app {others[0]}, or install it there"
        )
    raise errors.JupyterMissing(f"none of the {len(environments)} environments of {report.host} can run Jupyter")
