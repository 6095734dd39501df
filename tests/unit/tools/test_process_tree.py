"""Whose child is a process: from the table of processes to the kernel and its server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman.tools.jupyter import process_tree

KERNEL = "1f3c9a20-7d41-4c57-8f5e-0a6b2d9c4e11"
# A worker of a kernel; the kernel behind a wrapper; its server; another kernel whose parent is a shell; init.
LINKS = ["500 400", "400 390", "390 300", "300 1", "700 650", "650 1"]
KERNELS = [
    f"400 /run/user/1000/jm-x/kernel-{KERNEL}.json",
    "700 /home/bob/kernel-v3a.json",
    "390 x/kernel-wrapped.json",
]


@pytest.mark.parametrize(
    ("pid", "servers", "expected"),
    [
        (500, {300}, (KERNEL, 300)),
        (400, {300}, (KERNEL, 300)),
        (300, {300}, (None, 300)),
        (500, set(), (KERNEL, None)),
        (700, {300}, ("v3a", None)),
        (999, {300}, (None, None)),
    ],
)
def test_a_process_is_traced_to_its_kernel_and_server(
    pid: int, servers: set[int], expected: tuple[str | None, int | None]
) -> None:
    assert process_tree.place(process_tree.read(LINKS, KERNELS, []), pid, servers) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (f"/tmp/jm-a/kernel-{KERNEL}.json", KERNEL),
        ("--f=/x/kernel-v2-123.json", "v2-123"),
        ("kernel-.json", None),
        ("/x/kernel-a b.json", None),
        ("/x/notkernel-a.json", None),
        ("", None),
    ],
)
def test_the_id_is_in_the_name_of_the_connection_file(file: str, expected: str | None) -> None:
    assert process_tree.kernel_id(file) == expected


LINES = st.lists(st.text(max_size=30) | st.from_regex(r"\A[0-9]{1,3} [0-9]{1,3}\Z"), max_size=20)


@given(LINES, LINES, LINES)
def test_any_table_comes_to_an_end(links: list[str], kernels: list[str], uids: list[str]) -> None:
    tree = process_tree.read(links, [f"{line}/kernel-a.json" for line in kernels], uids)
    for pid in [*tree.parents, 5]:
        kernel, server = process_tree.place(tree, pid, {1, 7})
        assert kernel in {None, "a"}
        assert server in {None, 1, 7}
