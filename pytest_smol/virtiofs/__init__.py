"""The virtio-fs file server: FUSE requests of a guest, answered from the host's files.

``server`` and ``view`` may be imported, and ``hiding`` for the rules of what no guest may see.
Imports: errors only.
"""
