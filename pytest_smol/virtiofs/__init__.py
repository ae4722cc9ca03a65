"""A read-only vhost-user-fs server that works on a QEMU whose memory is private."""
