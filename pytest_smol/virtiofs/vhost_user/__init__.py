"""vhost-user, the transport that QEMU offers: messages, the state machine, the back end of one machine."""
