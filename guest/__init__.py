"""What runs inside the guest: PID 1, the pytest session, and the channel to the host."""
