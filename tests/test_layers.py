"""The lines of the house: imports point one way, and modules and functions stay small."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_smol import errors
from pytest_smol.errors import BootFailed, HostError, SettingError, SnapshotError

ROOT = Path(__file__).parent.parent

#: From top to bottom: what stands in a row may import its own package and rows below. A module
#: directly in pytest_smol is named as such, the rest by the package that it is in.
LAYERS = (
    ("plugin", "cli"),
    ("doctor",),
    ("session.xdist.roles",),
    ("session",),
    ("session.xdist",),
    ("pool",),
    ("artifacts", "machine", "guest"),
    ("snapshots", "guest_os"),
    ("engines",),
    ("reports",),
    ("marker", "virtiofs"),
    ("settings",),
    ("host", "protocol", "trust"),
    ("errors", "pytest_private", "setting_values"),
)

#: Packages within packages, from top to bottom, by the package that they are in.
INNER_LAYERS = {
    "engines": (("choice",), ("qemu",), ("confinement",), ("kvm",), ("protocol",)),
    "virtiofs": (
        ("server", "vhost_user"),
        ("backend",),
        ("virtio", "filesystem"),
        ("dependencies", "view"),
        ("hiding", "fuse"),
    ),
    "guest": (
        ("supervisor",),
        ("runner",),
        ("warmup",),
        ("session", "artifacts"),
        ("terminal",),
        ("storage",),
        ("port", "identity", "surroundings", "process_state", "scratch_disks"),
        ("message_fitting",),
    ),
}

#: What imports nothing of ours, so that both sides and every test can use it.
ALONE = (
    "errors",
    "pytest_private",
    "protocol.wire",
    "reports.text",
    "guest_os.cpio",
    "engines.kvm.probe",
    "host.signal_names",
    "engines.confinement.landlock",
    "engines.confinement.seccomp",
    "virtiofs.fuse",
)

#: Outside of QEMU's engine: the exception's name for what QEMU refuses.
KNOWS_QEMU = {"errors"}

#: All that the guest may import of ours, apart from its own modules.
GUEST_MAY_IMPORT = {"protocol.wire", "marker", "errors"}

#: The most modules directly in pytest_smol, and in any other folder.
MOST_AT_THE_TOP = 8
MOST_IN_A_FOLDER = 13

#: The errors that a user can do something about; a machine's own are its tests' authors' to judge.
WITH_REMEDY = {
    kind.__name__
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, (HostError, SettingError, SnapshotError, BootFailed))
}

#: Private attributes of pytest's objects that the host's side uses, in pytest_private alone.
PYTESTS_PRIVATE = (
    "_configure_python_path",
    "_pdbshown",
    "_keyboardinterrupt_memo",
    "_tw",
    "_esctable",
    "_get_unknown_ini_keys",
    "_inicache",
    "_parser",
)

LONGEST_MODULE = 399
LONGEST_FUNCTION = 60
MOST_PARAMETERS = 7
MOST_PUBLIC_METHODS = 15


def _sources() -> dict[str, Path]:
    """Modules of ours by name, without the packages' own."""
    found = {}
    for top, base in (("pytest_smol", ROOT / "pytest_smol"), ("guest", ROOT)):
        for folder, names, files in os.walk(ROOT / top):  # does not follow the links to guest and images
            names[:] = [name for name in names if name != "__pycache__"]
            for path in (Path(folder, file) for file in files if file.endswith(".py")):
                if path.name != "__init__.py":
                    found[".".join(path.relative_to(base).with_suffix("").parts)] = path
    return found


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
    """The row of LAYERS that ``module`` belongs to, the narrowest package that is named."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        for number, row in enumerate(LAYERS):
            if name in row:
                return number
    raise AssertionError(f"{module} is in no layer")


def _inner_floor(package: str, module: str) -> int | None:
    """The row of ``module`` within ``package``, None where its parts are not ordered."""
    name = module.split(".")[1]
    return next((n for n, row in enumerate(INNER_LAYERS.get(package, ())) if name in row), None)


def test_every_layer_has_its_modules() -> None:
    for row in LAYERS:
        for name in row:
            assert any(module == name or module.startswith(f"{name}.") for module in SOURCES), name
    for package, rows in INNER_LAYERS.items():
        for name in (name for row in rows for name in row):
            whole = f"{package}.{name}"
            assert any(module == whole or module.startswith(f"{whole}.") for module in SOURCES), whole


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_down(module: str) -> None:
    for imported in _imports(SOURCES[module]):
        if imported in ("", module):
            continue
        here, there = _floor(module), _floor(imported)
        assert there >= here, f"{module} imports {imported}"
        top, other = module.split(".", maxsplit=1)[0], imported.split(".")[0]
        assert there > here or top == other, f"{module} imports {imported}"


@pytest.mark.parametrize("module", sorted(name for name in SOURCES if name.split(".")[0] in INNER_LAYERS))
def test_imports_point_down_within_a_package(module: str) -> None:
    package = module.split(".", maxsplit=1)[0]
    here = _inner_floor(package, module)
    for imported in _imports(SOURCES[module]):
        if imported.split(".")[0] != package or "." not in imported:
            continue
        there = _inner_floor(package, imported)
        if here is None or there is None or module.split(".")[1] == imported.split(".")[1]:
            continue
        assert there > here, f"{module} imports {imported}"


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES.values()}), ids=str)
def test_folders_stay_small(folder: Path) -> None:
    modules = [path for path in SOURCES.values() if path.parent == folder]
    assert len(modules) <= (MOST_AT_THE_TOP if folder == ROOT / "pytest_smol" else MOST_IN_A_FOLDER)
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), "a room says what it is for"


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES.values()}), ids=str)
def test_a_package_says_what_may_be_imported_from_it_and_what_it_imports(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    if folder != ROOT / "pytest_smol":  # the package itself has the plugin and the command
        assert re.search(r"may be\s+imported|is imported", text, re.IGNORECASE)
        assert re.search(r"\bimports:", text, re.IGNORECASE)


def test_modules_of_one_name_are_two_ends_and_say_so() -> None:
    by_name: dict[str, list[Path]] = {}
    for path in SOURCES.values():
        by_name.setdefault(path.name, []).append(path)
    for paths in (paths for paths in by_name.values() if len(paths) > 1):
        one, other = paths
        for path, end in ((one, other), (other, one)):
            assert f"end is {end.relative_to(ROOT)}." in path.read_text(), path


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


@pytest.mark.parametrize(
    "module", sorted(name for name in SOURCES if not name.startswith("guest.") and name != "pytest_private")
)
def test_private_parts_of_pytest_are_in_one_module(module: str) -> None:
    """On the host's side; the guest runs within pytest's session and has uses of its own."""
    text = SOURCES[module].read_text()
    assert not re.search(r"^\s*(?:from|import) _pytest\b", text, re.MULTILINE)
    assert not re.search("|".join(rf"\b{name}\b" for name in PYTESTS_PRIVATE), text)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_modules_and_functions_stay_small(module: str) -> None:
    text = SOURCES[module].read_text()
    assert text.count("\n") <= LONGEST_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, node.name


def _parameters(function: ast.FunctionDef) -> int:
    """How many parameters a function has, ``self`` and ``cls`` not counted."""
    arguments = function.args
    named = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
    return len(named) + len(arguments.kwonlyargs) - (named[:1] in (["self"], ["cls"]))


def _public(body: list[ast.stmt]) -> list[ast.FunctionDef]:
    return [each for each in body if isinstance(each, ast.FunctionDef) and not each.name.startswith("_")]


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_functions_take_few_parameters_and_classes_have_few_methods(module: str) -> None:
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            assert _parameters(node) <= MOST_PARAMETERS, node.name
        elif isinstance(node, ast.ClassDef):
            assert len(_public(node.body)) <= MOST_PUBLIC_METHODS, node.name


def test_nearly_all_that_is_public_says_what_it_is() -> None:
    public: list[ast.FunctionDef | ast.ClassDef] = []
    for path in SOURCES.values():
        body = ast.parse(path.read_text()).body
        classes = [node for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        public += [*_public(body), *classes, *(method for each in classes for method in _public(each.body))]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    assert len(silent) <= 0.05 * len(public), silent


def test_the_architecture_has_a_row_for_each_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for folder in {path.parent for path in SOURCES.values()} - {ROOT / "pytest_smol"}:
        base = ROOT if folder.is_relative_to(ROOT / "guest") else ROOT / "pytest_smol"
        assert f"| `{folder.relative_to(base)}/` |" in text


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


#: What only QEMU's engine may say, in code or prose: its control protocol, its way to save and load state,
#: its options.
QEMU_WORDS = re.compile(r"qmp|chardev|migrat|(?<![\w-])-(?:accel|cpu|machine|incoming)\b", re.IGNORECASE)

#: What may name QEMU: its engine, what chooses the engine, the user's setting for its program (and the error
#: that names that setting), and the exceptions.
NAMES_QEMU = ("engines.", "settings", "cli", "errors", "host.process")

#: The document that specifies vhost-user is QEMU's.
SPECIFICATION = 'QEMU\'s "Vhost-user Protocol" specification'


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_only_qemus_engine_speaks_of_how_qemu_is_driven(module: str) -> None:
    found = QEMU_WORDS.findall(SOURCES[module].read_text())
    assert bool(found) <= (module in KNOWS_QEMU or module.startswith("engines.qemu.")), found


@pytest.mark.parametrize("module", sorted(name for name in SOURCES if not name.startswith(NAMES_QEMU)))
def test_what_uses_an_engine_does_not_know_which(module: str) -> None:
    """The file server least of all: its errors speak of the virtual machine or the engine's process."""
    assert not re.search("qemu", SOURCES[module].read_text().replace(SPECIFICATION, ""), re.IGNORECASE)


@pytest.mark.parametrize("module", sorted(name for name in SOURCES if not name.startswith("engines.")))
def test_engines_are_imported_by_their_protocol_and_their_choice(module: str) -> None:
    engines = {imported for imported in _imports(SOURCES[module]) if imported.startswith("engines.")}
    assert engines <= {"engines.protocol", "engines.choice"}


def test_one_module_imports_an_engine() -> None:
    users = {
        module
        for module, path in SOURCES.items()
        if not module.startswith("engines.qemu.")
        and any(imported.startswith("engines.qemu") for imported in _imports(path))
    }
    assert users == {"engines.choice"}
