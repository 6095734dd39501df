"""The example notebooks run on a server with a real torch, by the script that needs no browser."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from tests.bed import Bed, Cli, wait_until
from tests.bed.notebooks import a_session, served, token
from tests.bed.torch_cpu import TorchEnvironment, torch_environment

EXAMPLES = Path(__file__).parents[3] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@dataclass(frozen=True)
class Desk:
    """A session, and the environment whose kernel the notebooks use."""

    cli: Cli
    session: dict[str, Any]
    torch: TorchEnvironment

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start run_notebook.py as a person does who has activated the environment with jupyman."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        argv = [sys.executable, str(EXAMPLES / "run_notebook.py"), *map(str, words)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(
            argv, text=True, cwd=self.cli.user_home, env={**self.cli.environ, "PATH": path}, **pipes
        )

    def run(self, *words: str | Path) -> tuple[int, str]:
        with self.start(*words) as process:
            said, _ = process.communicate()
        return process.returncode, said

    def kept(self, name: str) -> Any:
        """Return a notebook as it lies on the server."""
        status, answer = served(self.session, f"/api/contents/{name}")
        return answer["content"] if status == 200 else None


@pytest.fixture(scope="module")
def desk(bed: Bed) -> Iterator[Desk]:
    torch = torch_environment(bed.conda.python)
    with a_session(bed) as (cli, session):
        added = cli("kernel", "add", str(torch.prefix), "server1", "--name", "torch")
        assert added.rc == 0, added
        yield Desk(cli, session, torch)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_as_they_should_be(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        # An id that a person gave stays the same when the notebook is changed.
        assert re.fullmatch(r"[a-z]+(-[a-z]+)?", cell.id)
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count, cell.metadata) == ([], None, {})


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pytorch_basics", r"accuracy on pictures that it never saw: (\d+\.\d)%"),
        ("geometric_basics", r"accuracy with edges: (\d+\.\d)%"),
    ],
)
def test_a_notebook_runs_to_its_end(desk: Desk, name: str, said: str) -> None:
    if name == "geometric_basics" and desk.torch.geometric:
        pytest.skip(f"torch_geometric cannot be installed: {desk.torch.geometric}")
    status, text = desk.run("server1", EXAMPLES / f"{name}.ipynb", "--kernel", "torch")
    assert status == 0, text
    found = re.search(said, text)
    assert found is not None, text
    assert float(found[1]) > 90
    assert token(desk.session) not in text
    here = nbformat.read(desk.cli.user_home / f"{name}.executed.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(here)
    assert outputs(desk.kept(f"{name}.ipynb")) == outputs(here)
    # The progress bar is a widget: jupyman did not say otherwise of this environment.
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs(here))
    assert not any(output["output_type"] == "error" for output in outputs(here))
    assert served(desk.session, "/api/sessions") == (200, [])
    assert served(desk.session, "/api/kernels") == (200, [])


def notebook(desk: Desk, name: str, *cells: str) -> Path:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])  # type: ignore[no-untyped-call]
    path = desk.cli.user_home / name
    nbformat.write(made, path)  # type: ignore[no-untyped-call]
    return path


def test_a_cell_that_fails_is_the_last(desk: Desk) -> None:
    path = notebook(desk, "fails.ipynb", "print('one'); print('two')", "1 / 0", "print('never')")
    status, text = desk.run("server1", path)
    assert status == 1, text
    assert "one\ntwo\n" in text
    assert "ZeroDivisionError" in text
    assert "never" not in text
    kinds = [output["output_type"] for output in outputs(desk.kept("fails.ipynb"))]
    assert kinds == ["stream", "error"]
    # The same again is no other notebook; another one of that name is.
    assert desk.run("server1", path)[0] == 1
    notebook(desk, "fails.ipynb", "print('mended')")
    status, text = desk.run("server1", path)
    assert status == 1
    assert "error: the server has another notebook called fails.ipynb\nhint: rename one of them" in text
    assert len(desk.kept("fails.ipynb")["cells"]) == 3
    status, text = desk.run("server1", path, "--replace", "-o", "mended.ipynb")
    assert status == 0, text
    assert "mended\n" in text


def test_the_token_is_on_no_command_line(desk: Desk) -> None:
    with desk.start("server1", notebook(desk, "waits.ipynb", "import time\ntime.sleep(1000)")) as process:
        try:
            wait_until(lambda: served(desk.session, "/api/sessions")[1], what="the notebook's kernel")
            lines = []
            for one in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    lines.append(" ".join(one.cmdline()))
            assert any("run_notebook.py" in line for line in lines)
            assert not [line for line in lines if token(desk.session) in line]
            process.send_signal(2)
            process.wait(20)
        finally:
            process.kill()
    # Ctrl-C ends the kernel, too.
    wait_until(lambda: served(desk.session, "/api/kernels")[1] == [], what="the kernel's end")


def test_the_script_reports_what_is_wrong(desk: Desk) -> None:
    status, text = desk.run("nobody", NOTEBOOKS[0])
    assert status == 2
    assert "error: " in text
    assert "Traceback" not in text
    broken = desk.cli.user_home / "broken.ipynb"
    broken.write_text("{")
    for path in (broken, desk.cli.user_home / "absent.ipynb"):
        status, text = desk.run("server1", path)
        assert (status, text.split(":")[0]) == (1, "error"), text
        assert "Traceback" not in text
