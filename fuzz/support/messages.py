"""Messages as a guest sends them, for a fuzzer to change."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["SAMPLES"]

_PLACE = {"path": "a.py", "lineno": 3, "message": "E"}
_ENTRY = {
    "lines": ["    def test():", ">       assert x", "E       assert 0"],
    "reprfuncargs": {"args": [["x", "0"]]},
    "reprlocals": {"lines": ["y = 1"]},
    "reprfileloc": _PLACE,
    "style": "long",
}
_NATIVE = {"type": "ReprEntryNative", "data": {"lines": ["Traceback\n", "E  x\n"]}}
_TRACEBACK = {
    "reprentries": [{"type": "ReprEntry", "data": _ENTRY}, _NATIVE],
    "extraline": "!",
    "style": "long",
}
_FAILURE = {
    "reprcrash": _PLACE,
    "reprtraceback": _TRACEBACK,
    "sections": [["t", "x", "-"]],
    "chain": [[_TRACEBACK, _PLACE, None], [_TRACEBACK, None, "During"]],
}
_PASSED = {
    "nodeid": "a.py::test",
    "location": ["a.py", 1, "test"],
    "keywords": {"test": 1},
    "outcome": "passed",
    "longrepr": None,
    "when": "call",
    "user_properties": [["key", {"n": [1]}]],
    "sections": [["Captured stdout call", "x"]],
    "duration": 0.25,
}
_EXTRA = {"name": "n", "format_type": "text", "content": "c", "mime_type": None, "extension": "txt"}
_OPTIONAL = {
    "rerun": 1,
    "_hypothesis_stats": "s",
    "smol_teststatus": ["passed", ".", ["WORD", {"green": True}]],
    "smol_shown": True,
    "extras": [_EXTRA],
}
_SUBTEST = {"_report_type": "SubTestReport", "_subtest.context": {"msg": "m", "kwargs": {"n": 1}}}
_NODE = {"parent": None, "kind": "Module", "name": "a.py", "nodeid": "a.py", "path": "/p/a.py", "doc": None}
_MARK = {"place": "module", "nodeid": "a.py", "kwargs": {"memory": 64}}
_ITEM = {"number": 0, "location": ["a.py", 1, "test"], "marks": [_MARK], "keywords": ["test"]}
_WARNING = {
    "text": "t",
    "category": "UserWarning",
    "filename": "a.py",
    "lineno": 1,
    "line": "x",
    "when": "runtest",
}
_STATE = {
    "lines": [["", "/p/a.py", "ff"]],
    "arcs": [["", "/p/a.py", -1, 1]],
    "collections": {"discovered": {"/p/__snapshots__/a": ["n"]}, "used": {"/p/a": ["n"]}},
    "selected": {"a.py::test": "passed"},
    "num_xfails": 0,
    "extensions": {"/p/a": "syrupy.extensions.amber.AmberSnapshotExtension"},
    "collected": [dict.fromkeys(("nodeid", "name", "path", "modulename", "methodname"), "x")],
    "collected_modules": ["a"],
}


def _report(**changes: Any) -> dict[str, Any]:
    return {"type": "report", "index": 0, "data": {**_PASSED, **changes}}


#: As JSON, so that no change to one is left in the next.
SAMPLES = tuple(
    json.dumps(message)
    for message in (
        _report(outcome="failed", longrepr=_FAILURE),
        _report(outcome="skipped", longrepr=["a.py", 1, "why"]),
        _report(outcome="skipped", longrepr="why", wasxfail="known"),
        _report(outcome="failed", longrepr="text", smol_status=["failed", "FAILED"]),
        _report(**_OPTIONAL),
        _report(**_SUBTEST),
        {"type": "collect_report", "data": {**_PASSED, "outcome": "failed", "longrepr": _FAILURE}},
        {"type": "warning", **_WARNING, "nodeid": "a.py::test", "location": ["a.py", 1, "test"]},
        {
            "type": "nodes",
            "rows": [
                {**_NODE, "place": "module"},
                {
                    **_NODE,
                    "parent": 0,
                    "kind": "Function",
                    "nodeid": "a.py::test",
                    "place": "test",
                    "item": _ITEM,
                },
            ],
        },
        {"type": "stop", "kind": "interrupt", "reason": "r", "returncode": 2, "place": ["a.py", 1]},
        {"type": "screen", "text": "\x1b[32mPASSED\x1b[0m", "fresh_line": True},
        {"type": "state", "plugin": "syrupy", "data": _STATE},
    )
)
