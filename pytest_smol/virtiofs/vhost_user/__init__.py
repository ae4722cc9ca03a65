"""vhost-user, a transport over a socket: messages, the state of a connection, the back end of one machine.

May be imported: ``transport``, by engines. Imports: virtiofs.backend, filesystem, virtio, errors.
"""
