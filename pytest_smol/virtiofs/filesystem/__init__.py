"""The tree that a guest sees: nodes, attributes, listings, and how host files are reached.

May be imported: ``tree`` and ``state``. Imports: virtiofs (view, fuse, dependencies, hiding), host, errors.
"""
