"""The virtio-fs file server: FUSE requests of a guest, answered from the host's files.

May be imported: ``server``, ``view``, ``backend`` (a guest's memory and queues, and transports to them), the
transports (``vhost_user``) by engines, and ``hiding`` for the rules of what no guest may see.
Imports: errors only.
"""
