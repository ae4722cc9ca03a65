"""What memory there is: the host's, and what control groups leave of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_smol.errors import NotEnoughMemory
from pytest_smol.host.resources import available_memory, memory_domain, require_memory

GIB = 1 << 30


def host(root: Path, cgroup: str, boot: str = "a boot\n", **files: str) -> Path:
    """A root directory with ``/proc`` and ``/sys`` of a host with 8 GiB available."""
    proc = root / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {8 * GIB >> 10} kB\n")
    (proc / "self/cgroup").write_text(cgroup)
    (proc / "sys/kernel/random/boot_id").write_text(boot)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name.replace("_", ".", 1)).write_text(text)
    return root


LIMITED = {"a__memory_max": f"{4 * GIB}\n", "a__memory_current": f"{GIB}\n", "a__b__memory_max": "max\n"}
UNLIMITED_V1 = {
    "memory__a__memory_limit_in_bytes": "9223372036854771712\n",
    "memory__a__memory_usage_in_bytes": "4096\n",
}


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {}, 8 * GIB),
        ("0::/a/b\n", LIMITED, 3 * GIB),
        ("0::/a\n", {**LIMITED, "a__memory_current": f"{5 * GIB}"}, 0),
        ("5:cpu:/x\n4:memory:/a\n", UNLIMITED_V1, 8 * GIB),
        (
            "4:memory:/a\n",
            {**UNLIMITED_V1, "memory__a__memory_limit_in_bytes": f"{GIB}"},
            GIB - 4096,
        ),
    ],
)
def test_what_is_available(tmp_path: Path, cgroup: str, files: dict[str, str], expected: int) -> None:
    assert available_memory(host(tmp_path, cgroup, **files)) == expected


def test_a_guest_that_does_not_fit(tmp_path: Path) -> None:
    root = host(tmp_path, "0::/a\n", **LIMITED)
    require_memory(3072 - 64, root)
    with pytest.raises(NotEnoughMemory, match="3072 MiB that are available"):
        require_memory(3072 - 63, root)


def test_a_domain_is_what_has_the_memory(tmp_path: Path) -> None:
    domains = [
        memory_domain(host(tmp_path / str(number), *given[:2], **given[2]))
        for number, given in enumerate(
            [
                ("0::/\n", "a boot", {}),
                ("0::/a/b\n", "another boot", {}),
                ("0::/a/b\n", "a boot", LIMITED),
            ]
        )
    ]
    assert len(set(domains)) == 3
    same = memory_domain(host(tmp_path / "one", "0::/some/scope\n", "a boot"))
    assert same == memory_domain(host(tmp_path / "other", "0::/another/scope\n", "a boot")) == domains[0]
    assert all(domain.isalnum() for domain in domains)
