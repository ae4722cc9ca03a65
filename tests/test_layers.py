"""The lines of the house: imports point one way, and modules and functions stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_smol import errors
from pytest_smol.errors import BootFailed, HostError, SettingError, SnapshotError

ROOT = Path(__file__).parent.parent

#: From top to bottom: a module imports only what stands in a later row, or its own package.
LAYERS = (
    ("plugin", "cli"),
    ("summary",),
    ("session", "doctor", "signals", "distribution"),
    ("guestsession", "closing"),
    ("grouprun",),
    ("pool",),
    ("factory", "sharing", "terminal"),
    ("homecoming",),
    ("machine", "snapshots", "image", "guest", "relay", "confinement", "admission"),
    ("groups", "nodes", "reports", "bootfiles"),
    (
        "consoles",
        "marker",
        "qemu",
        "qmp",
        "process",
        "rundir",
        "resources",
        "cache",
        "host_paths",
        "kernel_package",
        "adaptors",
    ),
    ("options", "accel", "kernel", "reportdata", "neighbours", "virtiofs", "interleave", "screen"),
    ("guestwarnings",),
    ("artifacts", "syrupydata", "weight"),
    (
        "errors",
        "interpreter",
        "kvm",
        "text",
        "user",
        "wire",
        "cpio",
        "postmortem",
        "usage",
        "landlock",
        "callfilter",
    ),
)

#: What imports nothing of ours, so that both sides and every test can use it.
ALONE = ("errors", "wire", "text", "cpio", "kvm", "postmortem", "landlock", "callfilter", "virtiofs.fuse")

#: All that the guest may import of ours beside itself.
GUEST_MAY_IMPORT = {"wire", "marker", "errors"}

#: The errors that a user can do something about; a machine's own are its tests' authors' to judge.
WITH_REMEDY = {
    kind.__name__
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, (HostError, SettingError, SnapshotError, BootFailed))
}

LONGEST_MODULE = 399
LONGEST_FUNCTION = 60


def _sources() -> dict[str, Path]:
    """Modules of ours by name, without the package's own."""
    package = {path: path.relative_to(ROOT / "pytest_smol") for path in (ROOT / "pytest_smol").glob("*.py")}
    package |= {
        path: path.relative_to(ROOT / "pytest_smol") for path in (ROOT / "pytest_smol/virtiofs").glob("*.py")
    }
    package |= {path: path.relative_to(ROOT) for path in (ROOT / "guest").glob("*.py")}
    return {
        ".".join(name.with_suffix("").parts): path
        for path, name in package.items()
        if name.name != "__init__.py"
    }


SOURCES = _sources()


def _imports(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it, without the package's name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pytest_smol":
            base = (node.module or "").split(".")[1:]
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                yield whole if whole in SOURCES else ".".join(base)
        elif isinstance(node, ast.Import):
            yield from (
                name.name.removeprefix("pytest_smol.") for name in node.names if "pytest_smol" in name.name
            )


def _floor(module: str) -> int:
    return next(number for number, row in enumerate(LAYERS) if module.split(".", maxsplit=1)[0] in row)


def test_every_module_has_its_layer_and_every_layer_its_modules() -> None:
    rooms = [room for row in LAYERS for room in row]
    assert sorted(rooms) == sorted({module.split(".")[0] for module in SOURCES})


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_down(module: str) -> None:
    for imported in _imports(SOURCES[module]):
        same_room = imported.split(".")[0] == module.split(".", maxsplit=1)[0]
        assert imported == "" or same_room or _floor(imported) > _floor(module), imported


def test_packages_have_no_cycles() -> None:
    graph = {module: {name for name in _imports(path) if name in SOURCES} for module, path in SOURCES.items()}
    while graph:
        leaves = {module for module, imported in graph.items() if not imported & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {module: imported for module, imported in graph.items() if module not in leaves}


@pytest.mark.parametrize("module", ALONE)
def test_what_stands_alone_imports_nothing_of_ours(module: str) -> None:
    assert not list(_imports(SOURCES[module]))


@pytest.mark.parametrize("module", sorted(name for name in SOURCES if name.startswith("guest.")))
def test_the_guest_imports_little(module: str) -> None:
    for imported in _imports(SOURCES[module]):
        assert imported.split(".")[0] == "guest" or imported in GUEST_MAY_IMPORT, imported


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_modules_and_functions_stay_small(module: str) -> None:
    text = SOURCES[module].read_text()
    assert text.count("\n") <= LONGEST_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_every_error_that_a_user_can_mend_says_how(module: str) -> None:
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in WITH_REMEDY:
            assert "remedy" in {keyword.arg for keyword in node.keywords}, ast.unparse(node)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_nothing_polls_with_sleeps(module: str) -> None:
    calls = (node for node in ast.walk(ast.parse(SOURCES[module].read_text())) if isinstance(node, ast.Call))
    assert "sleep" not in {ast.unparse(call.func).rpartition(".")[2] for call in calls}


def test_the_errors_with_a_remedy_are_known() -> None:
    assert {"HostError", "DiskFull", "SettingError", "SnapshotError", "BootFailed"} <= WITH_REMEDY
    assert "MachineDied" not in WITH_REMEDY
