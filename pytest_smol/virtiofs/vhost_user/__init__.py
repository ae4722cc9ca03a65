"""vhost-user, a transport over a socket: messages, the state of a connection, the back end of one machine."""
