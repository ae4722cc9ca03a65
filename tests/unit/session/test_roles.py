"""What pytest-xdist's controller tells its workers, and what they make of it. Without pytest-xdist."""

from __future__ import annotations

import importlib
import json
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from _pytest.outcomes import Exit

from pytest_smol.errors import NotEnoughMemory
from pytest_smol.host import resources
from pytest_smol.machine.dispatcher import GuestStop
from pytest_smol.reports import warning_classes
from pytest_smol.reports.nodes import NodeTable
from pytest_smol.session.guests.collected import Collected, SessionEnded
from pytest_smol.session.guests.request import SessionRequest
from pytest_smol.session.xdist.roles import Controller, SingleProcess, Worker, role_of
from pytest_smol.settings import Settings

#: What pytest-xdist itself has in ``workerinput``.
GIVEN = {"workerid": "gw0", "workercount": 2, "testrunuid": "abc", "mainargv": ["pytest", "-n2"]}

REQUEST = SessionRequest(("-n2",), ("pytest",), Path("/root"), Path("/cwd"), ("/lib",), {"PATH": "/bin"})


def config_of(**options: Any) -> Any:
    """A configuration with ``options``, and a plugin manager that has no terminal reporter."""
    defaults = {"collectonly": False, "dist": "load", "tx": ["popen", "popen"]}
    return SimpleNamespace(
        option=SimpleNamespace(**{**defaults, **options}),
        invocation_params=SimpleNamespace(args=("-n2", "a b"), dir=Path("/cwd")),
        get_terminal_writer=lambda: SimpleNamespace(hasmarkup=True),
    )


def role(config: Any, snapshot_dir: Path | None = None) -> SingleProcess:
    return role_of(cast(pytest.Config, config), ("/first", "/second"), snapshot_dir)


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    monkeypatch.setattr(resources, "available_memory", lambda: 1000 << 20)
    made = role(config_of(), tmp_path)
    assert isinstance(made, Controller)
    yield made
    made.pytest_unconfigure()
    assert not list(tmp_path.iterdir())


def node_of(popen: bool = True, chdir: str | None = None) -> Any:
    """A worker that is about to start."""
    spec = SimpleNamespace(popen=popen, chdir=chdir)
    return SimpleNamespace(gateway=SimpleNamespace(spec=spec), workerinput=dict(GIVEN))


def worker_of(workerinput: dict[str, Any], **options: Any) -> tuple[Worker, dict[str, Any]]:
    config = config_of(**options)
    config.workerinput, config.workeroutput = workerinput, {}
    made = role(config)
    assert isinstance(made, Worker)
    return made, config.workeroutput


def test_what_workers_share_is_where_snapshots_are_to_be(controller: Controller, tmp_path: Path) -> None:
    directory = controller.process_context().directory
    assert directory is not None
    assert directory.parent == tmp_path


# --- the role of each process


@pytest.mark.parametrize(
    "options", [{"dist": "no"}, {"tx": []}, {"collectonly": True}, {"dist": "no", "tx": ["popen"]}]
)
def test_what_distributes_nothing_is_alone(options: dict[str, Any]) -> None:
    assert type(role(config_of(**options))) is SingleProcess


def test_without_pytest_xdist_everything_is_alone() -> None:
    config = SimpleNamespace(option=SimpleNamespace(collectonly=False))
    assert type(role(config)) is SingleProcess


def test_only_the_controller_runs_no_tests(controller: Controller) -> None:
    worker, _ = worker_of(dict(GIVEN))
    assert [each.runs_tests for each in (SingleProcess(), worker, controller)] == [True, True, False]


# --- what workers are told


def test_a_worker_is_told_the_invocation_and_what_it_may_use(controller: Controller) -> None:
    node = node_of()
    controller.pytest_configure_node(node)
    told = node.workerinput["smol"]
    assert told["request"] == {
        "args": ("-n2", "a b"),
        "argv": tuple(sys.argv),
        "cwd": "/cwd",
        "sys_path": ("/first", "/second"),
    }
    assert (told["memory"], told["colour"], Path(told["share"]).is_dir()) == (500 << 20, True, True)
    assert json.dumps(told)  # simple types only


def test_a_worker_elsewhere_has_its_own_invocation(controller: Controller) -> None:
    for node in (node_of(popen=False), node_of(chdir="/elsewhere")):
        controller.pytest_configure_node(node)
        assert "request" not in node.workerinput["smol"]


def test_workers_say_to_guests_what_the_controller_said(controller: Controller) -> None:
    said = controller.process_context().adapt_request(REQUEST)
    node = node_of()
    controller.pytest_configure_node(node)
    worker, _ = worker_of(node.workerinput)
    context = worker.process_context()
    # A worker's own process has other arguments, another path and some more variables.
    own = SessionRequest(("x",), ("-c",), REQUEST.rootdir, Path("/"), (), {"PYTEST_XDIST_WORKER": "gw0"})
    assert context.adapt_request(own) == said == replace(REQUEST, dist="load")
    assert context.sessions is not None
    assert (context.memory, context.colour, context.workerinput) == (500 << 20, True, GIVEN)
    assert context.directory == Path(node.workerinput["smol"]["share"])


def test_variables_of_one_worker_are_not_for_the_guests_of_all(controller: Controller) -> None:
    node = node_of()
    controller.pytest_configure_node(node)
    request = SessionRequest((), (), Path("/"), Path("/"), (), {"PYTEST_XDIST_WORKER": "gw0", "PATH": "/bin"})
    assert worker_of(node.workerinput)[0].process_context().adapt_request(request).env == {"PATH": "/bin"}


@pytest.mark.parametrize("dist", ["loadgroup", "load"])
def test_distribution_by_groups_is_known(dist: str) -> None:
    made = role(config_of(dist=dist))
    assert made.process_context().adapt_request(REQUEST).dist == dist
    cast(Controller, made).pytest_unconfigure()
    worker, _ = worker_of(dict(GIVEN), loadgroup=dist == "loadgroup")
    assert worker.process_context().adapt_request(REQUEST).dist == dist


def test_a_worker_on_another_machine_shares_nothing() -> None:
    worker, _ = worker_of({**GIVEN, "smol": {"colour": False, "share": "/not/here", "memory": 1}})
    context = worker.process_context()
    assert (context.sessions, context.directory, context.memory) == (None, None, None)
    assert (context.workerinput, context.colour) == (GIVEN, False)


def test_what_others_told_the_worker_is_kept() -> None:
    worker, _ = worker_of({**GIVEN, "database": "db0", "smol": {}})
    assert worker.process_context().workerinput == {**GIVEN, "database": "db0"}


# --- memory


@pytest.mark.parametrize(("memory", "left"), [(256, 2), (500, 1)])
def test_no_more_workers_are_started_than_fit(controller: Controller, memory: int, left: int) -> None:
    said = controller.prepare(Settings(memory=memory))
    assert len(controller._config.option.tx) == left
    assert bool(said) is (left < 2)


def test_where_no_worker_fits_none_is_started(controller: Controller) -> None:
    with pytest.raises(NotEnoughMemory, match="2 workers with a guest of 2000 MiB"):
        controller.prepare(Settings(memory=2000))


@pytest.mark.parametrize(
    "options", [{"dist": "each"}, {"tx": ["2*popen"]}, {"tx": ["popen//id=a", "2*popen"]}]
)
def test_workers_that_were_chosen_one_by_one_are_not_left_out(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 400 << 20)
    with pytest.raises(NotEnoughMemory, match="workers with a guest of 256 MiB"):
        role(config_of(**options)).prepare(Settings(memory=256))


def test_workers_of_other_machines_need_no_memory_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 400 << 20)
    assert role(config_of(tx=["ssh=there", "popen", "socket=there:1"])).prepare(Settings(memory=256)) == ""


# --- the end


def test_what_was_hidden_from_a_workers_tests_is_told_by_the_controller(controller: Controller) -> None:
    controller.process_context().hidden.add("/p/.env")
    for path in ("/p/.netrc", "/p/\udc80.pem"):
        worker, output = worker_of(dict(GIVEN))
        worker.process_context().hidden.add(path)
        worker.pytest_sessionfinish()
        assert json.dumps(output).isascii()
        ended_by(controller, output)
    lines: list[str] = []
    config: Any = SimpleNamespace(rootpath=Path("/p"))
    SingleProcess().pytest_terminal_summary(SimpleNamespace(write_line=lines.append), config)
    assert lines == []
    controller.pytest_terminal_summary(SimpleNamespace(write_line=lines.append), config)
    assert lines == ["smol: hidden from tests: .env, .netrc, \\udc80.pem (smol_show makes exceptions)"]


def ended_by(controller: Controller, workeroutput: dict[str, Any]) -> None:
    controller.pytest_testnodedown(SimpleNamespace(workeroutput=workeroutput))


def test_a_usage_error_of_a_worker_is_the_controllers(controller: Controller) -> None:
    worker, output = worker_of(dict(GIVEN))
    worker.end_run(pytest.UsageError("first", "second \udc80"))
    assert worker.over
    assert json.dumps(output).isascii()
    assert output["smol"]["lines"] == ["first", "second \\udc80"]  # execnet can send that
    with pytest.raises(pytest.UsageError) as caught:
        ended_by(controller, output)
    assert caught.value.args == ("first", "second \\udc80")


def test_an_exit_of_a_worker_is_the_controllers(controller: Controller) -> None:
    worker, output = worker_of(dict(GIVEN))
    worker.note_exit(Exit("enough", 3))
    assert not worker.over
    with pytest.raises(Exit, match="enough") as caught:
        ended_by(controller, output)
    assert caught.value.returncode == 3


def test_an_exit_without_a_code_is_left_to_pytest_xdist(controller: Controller) -> None:
    worker, output = worker_of(dict(GIVEN))
    worker.note_exit(Exit("enough"))
    ended_by(controller, output)
    controller.pytest_testnodedown(SimpleNamespace())  # it crashed


@pytest.mark.parametrize(
    ("stop", "lines", "alone", "distributed"),
    [
        (GuestStop("fail", "x", None), [], True, True),
        (GuestStop("stop", "x", None), [], True, True),
        (GuestStop("exit", "x", 3), [], True, False),
        (None, ["usage"], True, False),
        (None, [], False, False),
    ],
)
def test_workers_report_a_collection_that_failures_ended(
    controller: Controller, stop: GuestStop | None, lines: list[str], alone: bool, distributed: bool
) -> None:
    collected = Collected(NodeTable(str), stop=stop, usage=lines)
    ended = SessionEnded(2, collected, "")
    assert SingleProcess().ends_in_collection(ended) is alone
    assert controller.ends_in_collection(ended) is distributed
    assert worker_of(dict(GIVEN))[0].ends_in_collection(ended) is distributed


def test_alone_errors_are_raised() -> None:
    with pytest.raises(pytest.UsageError, match="no"):
        SingleProcess().end_run(pytest.UsageError("no"))


# --- warning classes of guests, which pytest-xdist looks for by module and name


@pytest.mark.parametrize(
    "name", ["MyWarning", "a b", "", "__path__", "__getattr__", "clean", "stand_in", "\udc80", "x" * 500]
)
def test_the_controller_finds_each_stand_in(name: str) -> None:
    kind = warning_classes.stand_in(name)
    found = getattr(importlib.import_module(kind.__module__), kind.__name__)
    assert issubclass(found, Warning)
    assert found.__name__ == kind.__name__
    assert len(kind.__name__.encode()) < 500
    assert str(found("text")) == "text"


def test_the_module_has_no_attributes_that_python_asks_for() -> None:
    assert not hasattr(warning_classes, "__path__")


def test_what_a_part_may_not_use_is_refused() -> None:
    resources.require_part(256, None)
    resources.require_part(256, 320 << 20)
    with pytest.raises(NotEnoughMemory, match="available to each worker"):
        resources.require_part(256, 319 << 20)


def test_what_workers_share_is_in_a_directory_of_the_users_own(controller: Controller) -> None:
    directory = controller.process_context().directory
    assert directory is not None
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
