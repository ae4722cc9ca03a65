"""pytest-xdist: the roles of controller and workers, and the session snapshots that they share.

May be imported: ``roles`` by the plugin, ``shared_sessions`` by the session.
Imports: session, snapshots, host, reports; nothing of pytest-xdist itself.
"""
