"""The chore "IProgress not found": a progress bar fails, one command repairs it, and a real browser shows it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Bed, User
from tests.bed.http import get
from tests.bed.kernels import SITE, able, put_spec
from tests.bed.notebooks import local_port, now, token
from tests.bed.packages import closure, install
from tests.e2e.desk import Desk, at_desk

BAR = "from tqdm.notebook import tqdm\nfor _ in tqdm(range(3), desc='epochs'):\n    pass"


def own_lab(user: User, bed: Bed) -> Path:
    """Make ~/lab an environment of the user's own that runs JupyterLab; returns its prefix."""
    lab, theirs = user.home / "lab", bed.conda.lab
    shutil.copytree(bed.conda.prefix_template, lab, symlinks=True)
    # Links, as a copy takes half a minute on a busy machine; folders that an installation adds to are its own.
    shared = "share/jupyter/labextensions"
    for folder in (SITE, Path("share/jupyter"), Path(shared), Path("etc")):
        (lab / folder).mkdir(parents=True, exist_ok=True)
        for entry in (theirs / folder).iterdir():
            if entry.name not in {"labextensions", "__pycache__"}:
                (lab / folder / entry.name).symlink_to(entry)
    install(closure("pip"), lab)
    program = lab / "bin/jupyter-lab"
    program.write_text((theirs / "bin/jupyter-lab").read_text().replace(str(theirs), str(lab)))
    program.chmod(0o755)
    for parent, folders, names in os.walk(lab):
        for name in (".", *folders, *names):
            os.chown(Path(parent, name), user.uid, user.gid, follow_symlinks=False)
    return lab


@pytest.fixture(scope="module")
def desk(bed: Bed) -> Iterator[Desk]:
    """A desk whose server runs in one environment of the user's own, and whose kernel in another."""
    user = bed.user("bash")
    try:
        own_lab(user, bed)
        python = able(user, bed)
        done = user.run(str(python), "-m", "pip", "install", "-q", "tqdm")
        assert done.returncode == 0, done
        put_spec(user, "study", python, "Study")
        with at_desk(bed, words=("--env", "~/lab"), kernel="Study") as made:
            yield made
    finally:
        bed.reset()


def test_a_progress_bar_is_drawn_after_the_fix(desk: Desk) -> None:
    assert "ImportError: IProgress not found" in desk.run_cell(BAR, 1)
    ran = desk.cli("kernel", "check", "study", "--fix", "--yes", "--json")
    assert ran.rc == 0, ran
    assert [one["packages"] for one in ran.json["repairs"]] == [["jupyterlab_widgets>=3,<4"], ["ipywidgets>=8,<9"]]
    assert ran.json["problems"] == []
    # As the command says: restart the kernel, reload the tab.
    session = now(desk.cli)
    _, [kernel] = get(local_port(session), "/api/kernels", token(session))
    status, _ = get(local_port(session), f"/api/kernels/{kernel['id']}/restart", token(session), "POST", {})
    assert status == 200
    desk.page.reload()
    desk.page.get_by_text("Study | Idle").wait_for()
    desk.start_cell(BAR)
    output = desk.page.locator(".jp-Notebook .jp-OutputArea-output", has_text="3/3")
    bar = output.locator(".jupyter-widgets.widget-hprogress .progress-bar-success")
    bar.wait_for(state="visible")
    box = bar.bounding_box()
    assert box is not None
    assert box["width"] > 50
    assert box["height"] > 5
    assert "100%" in output.inner_text()
