"""What plugins gathered in a machine, as plain data for the same plugins on the host.

A guest is killed without pytest_sessionfinish. What these plugins write there, the host
writes once for the whole run. None of them is imported here: a plugin that is in use has
been loaded by pytest.
"""

from __future__ import annotations

import glob
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest

#: The most rows of one record: they bound the size of a message and the number of messages.
BATCH = 200

#: The most rows of one record of arcs, which are smaller: a row of the others holds a whole file's lines.
ARCS = 5_000

Record = dict[str, Any]


def records(config: pytest.Config, names: list[str]) -> Iterator[tuple[str, Record]]:
    """What each of the plugins ``names`` has for the host, as some records each.

    A plugin that fails has one record that says so: ``{"error": text}``.
    """
    for name in names:
        try:
            for record in _BRIDGES[name](config):
                yield name, record
        except Exception as error:
            yield name, {"error": f"{type(error).__name__}: {error}"}


# --- coverage ---------------------------------------------------------------------------------


def _coverage(config: pytest.Config) -> Iterator[Record]:
    """Rows of the data files, as coverage.py documents their schema; numbits stay as they are."""
    controller = getattr(config.pluginmanager.get_plugin("_cov"), "cov_controller", None)
    if controller is None or controller.cov is None:
        return
    cov = controller.cov
    cov._warn_no_data = cov._warn_unimported_source = False
    # The host adds the files that were never imported; the guest need not read all source files for that.
    cov._post_save_work = lambda: None
    cov.stop()
    data = cov.get_data()
    own = data.data_filename()
    data.close()
    base = os.path.join(controller.topdir, cov.config.data_file)
    for path in {own, *glob.glob(f"{glob.escape(base)}.*")}:  # subprocesses have files of their own
        if os.path.exists(path):
            yield from _rows_of(path)


def _rows_of(path: str) -> Iterator[Record]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for kind, query in _QUERIES.items():
            rows: list[list[Any]] = []
            for row in database.execute(query):
                rows.append([each.hex() if isinstance(each, bytes) else each for each in row])
                if len(rows) == (ARCS if kind == "arcs" else BATCH):
                    yield {kind: rows}
                    rows = []
            if rows:
                yield {kind: rows}


_QUERIES = {
    "lines": (
        "select context, path, numbits from line_bits "
        "join file on file.id = file_id join context on context.id = context_id"
    ),
    "arcs": (
        "select context, path, fromno, tono from arc "
        "join file on file.id = file_id join context on context.id = context_id"
    ),
    "tracers": "select path, tracer from tracer join file on file.id = file_id",
}


# --- syrupy -----------------------------------------------------------------------------------


def _syrupy(config: Any) -> Iterator[Record]:
    """The report that a worker of pytest-xdist has for its controller; the snapshots are written by then."""
    session = getattr(config, "_syrupy", None)
    module: Any = sys.modules.get("syrupy.session")
    if session is None or module is None:
        return
    if not hasattr(session, "_publish_worker_report"):
        session.flush_snapshot_write_queue()
        return
    output: dict[str, Any] = {}
    config.workeroutput = output
    module.is_xdist_worker = lambda: True
    session.finish()
    if "syrupy_report" not in output:
        session._publish_worker_report()
    payload: Record = output["syrupy_report"]
    for key in ("collections", "collected"):
        if isinstance(payload[key], bytes):
            payload[key] = module.decompress_json(payload[key])
    extensions = {place: _own_class(extension, "syrupy.") for place, extension in session._extensions.items()}
    yield {**payload, "extensions": extensions}


def _own_class(value: object, package: str) -> str:
    """The first of the classes of ``value`` that the package itself has, by its full name."""
    classes = (each for each in type(value).__mro__ if each.__module__.startswith(package))
    return next((f"{each.__module__}.{each.__qualname__}" for each in classes), "")


# --- pytest-benchmark -------------------------------------------------------------------------

_BENCHMARK_FIELDS = ("name", "fullname", "group", "param", "params", "extra_info", "iterations")


def _benchmark(config: Any) -> Iterator[Record]:
    session = getattr(config, "_benchmarksession", None)
    for bench in getattr(session, "benchmarks", ()):
        options = {name: _name_of(value) for name, value in bench.options.items()}
        fields = {name: getattr(bench, name) for name in _BENCHMARK_FIELDS}
        yield {
            **fields,
            "options": options,
            "has_error": bool(bench.has_error),
            "data": list(bench.stats.data),
        }


def _name_of(value: Any) -> Any:
    return getattr(value, "__name__", str(value)) if callable(value) else value


#: Each bridge by its name in pytest_smol/artifacts/plugins/registry.py.
_BRIDGES: Mapping[str, Callable[[pytest.Config], Iterator[Record]]] = {
    "coverage": _coverage,
    "syrupy": _syrupy,
    "benchmark": _benchmark,
}
