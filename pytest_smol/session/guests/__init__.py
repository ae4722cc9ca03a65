"""Guest sessions: pytest in a guest, what it is told, what it collected, and its snapshot.

May be imported by the session and the plugin: all modules.
Imports: pool, machine, reports, snapshots, guest_os, session.placement, session.xdist.shared_sessions.
"""
