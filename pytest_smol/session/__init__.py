"""One run of pytest with machines: which test runs where, guest sessions, group runs, the end of the run.

May be imported: ``run.SmolSession``, ``guest_session`` and ``run_end`` by the plugin.
Imports: pool, artifacts, machine, reports, snapshots, protocol, settings, marker.
"""
