"""One run of pytest with machines: which test runs where, guest sessions, group runs, the end of the run.

May be imported by the plugin: ``run.SmolSession``, ``summary``, ``guarded_hooks`` and ``guests``.
Imports: pool, artifacts, machine, reports, snapshots, protocol, settings, marker.
"""
