"""Free memory where control groups limit it: faithful copies of what Linux shows of them, in all their nestings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from offbeat.config.memory import UNLIMITED, available_memory, control_groups

MIB = 2**20
NONE_1 = 9223372036854771712
"""What version 1 writes where there is no limit."""


@dataclass
class Tree:
    """A root folder that gets ``proc`` and the file systems of control groups."""

    root: Path

    def show(self, cgroup: str, mounts: str, available: int = 20_000 * MIB) -> None:
        """Write what the process sees of itself."""
        own = self.root / "proc" / "self"
        own.mkdir(parents=True)
        (self.root / "proc" / "meminfo").write_text(
            f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\nHugePages_Total: 0\n"
        )
        (own / "cgroup").write_text(cgroup)
        (own / "mountinfo").write_text(mounts)

    def group(self, place: str, **files: object) -> None:
        """Files of the group in ``place``; ``__`` stands for the dot in their names."""
        folder = self.root / place
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(f"{content}\n")

    def free(self) -> int:
        """Free memory in MiB."""
        assert available_memory(self.root) % MIB == 0
        return available_memory(self.root) // MIB


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty one."""
    return Tree(tmp_path)


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)


def test_the_tightest_group_on_the_way_up_counts(tree: Tree) -> None:
    tree.show("0::/kube.slice/pod.slice/box.scope\n", V2)
    tree.group("sys/fs/cgroup", memory__stat="inactive_file 1")  # the root has no limit
    tree.group("sys/fs/cgroup/kube.slice", memory__max="max", memory__current=9000 * MIB, memory__stat="")
    tree.group(
        "sys/fs/cgroup/kube.slice/pod.slice",
        memory__max=1200 * MIB, memory__current=700 * MIB, memory__stat=f"active_file 7\ninactive_file {100 * MIB}",
    )  # fmt: skip
    tree.group("sys/fs/cgroup/kube.slice/pod.slice/box.scope", memory__max=4000 * MIB, memory__current=600 * MIB)
    assert tree.free() == 600
    tree.group("sys/fs/cgroup/kube.slice", memory__max=9100 * MIB)
    assert tree.free() == 100
    tree.group("sys/fs/cgroup/kube.slice", memory__max="max", memory__high=9050 * MIB)  # throttled from there on
    assert tree.free() == 50
    tree.group("sys/fs/cgroup/kube.slice", memory__high="max")
    tree.group("sys/fs/cgroup/kube.slice/pod.slice", memory__max="max")
    assert tree.free() == 3400
    tree.group("sys/fs/cgroup/kube.slice/pod.slice/box.scope", memory__max="max")
    assert tree.free() == 20_000, "the machine's"


def test_version_1_has_a_tree_of_its_own_for_memory(tree: Tree) -> None:
    tree.show("9:cpu,cpuacct:/other\n4:memory:/docker/abc\n0::/\n", V1 + V2.replace("/sys/fs/cgroup", "/unified"))
    outer, inner = "sys/fs/cgroup/memory/docker", "sys/fs/cgroup/memory/docker/abc"
    tree.group("sys/fs/cgroup/memory", memory__limit_in_bytes=NONE_1, memory__usage_in_bytes=9000 * MIB)
    tree.group(outer, memory__limit_in_bytes=1200 * MIB, memory__usage_in_bytes=500 * MIB, memory__use_hierarchy=1)
    tree.group(
        inner, memory__limit_in_bytes=NONE_1, memory__usage_in_bytes=400 * MIB,
        memory__stat=f"inactive_file 0\ntotal_inactive_file {5 * MIB}",
    )  # fmt: skip
    tree.group("sys/fs/cgroup/cpu/other", memory__limit_in_bytes=1)
    assert tree.free() == 700
    tree.group(inner, memory__limit_in_bytes=1000 * MIB)
    assert tree.free() == 605
    tree.group(inner, memory__limit_in_bytes=NONE_1)
    tree.group(outer, memory__use_hierarchy=0)  # it counts only the processes that are in it themselves
    assert tree.free() == 20_000


@pytest.mark.parametrize("path", ["/docker/abc", "/", "/../abc", "/elsewhere"])
def test_a_container_that_sees_its_own_group_only(path: str, tree: Tree) -> None:
    mounted = "/docker/abc" if path == "/docker/abc" else "/"
    tree.show(f"0::{path}\n", V2.replace(" / /sys", f" {mounted} /sys"))
    tree.group("sys/fs/cgroup", memory__max=1200 * MIB, memory__current=200 * MIB)
    assert tree.free() == 1000


def test_a_group_below_the_one_that_is_mounted(tree: Tree) -> None:
    tree.show("0::/docker/abc/job\n", V2.replace(" / /sys", " /docker/abc /sys"))
    tree.group("sys/fs/cgroup", memory__max=1200 * MIB, memory__current=200 * MIB)
    tree.group("sys/fs/cgroup/job", memory__max=300 * MIB, memory__current=0)
    assert tree.free() == 300
    assert control_groups(tree.root) == [tree.root / "sys/fs/cgroup/job", tree.root / "sys/fs/cgroup"]


def test_mounts_lie_anywhere(tree: Tree) -> None:
    tree.show("0::/a\n", V2.replace("/sys/fs/cgroup", "/mnt/control\\040groups"))
    tree.group("mnt/control groups/a", memory__max=300 * MIB, memory__current=0)
    assert tree.free() == 300


def test_more_than_is_allowed_leaves_nothing(tree: Tree) -> None:
    tree.show("0::/a\n", V2)
    tree.group("sys/fs/cgroup/a", memory__max=300 * MIB, memory__current=400 * MIB)
    assert tree.free() == 0


def test_without_proc_what_the_system_says_counts(tmp_path: Path) -> None:
    assert 0 < available_memory(tmp_path) <= UNLIMITED
    assert control_groups(tmp_path) == []
    assert 0 < available_memory() < 2**50
