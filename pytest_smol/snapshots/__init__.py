"""Frozen machines: the snapshot value, and the cache of base snapshots with keys, locks and validity.

Imports: engines (what hardware is), virtiofs (node tables, dependencies), host.
"""
