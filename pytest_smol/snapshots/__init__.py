"""Frozen machines: the snapshot value, its files, and the cache of base snapshots.

May be imported: snapshot, base_cache, description, sparse. Imports: engines (what a machine's
hardware is), virtiofs (the file server's state, dependencies) and host.
"""
