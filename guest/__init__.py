"""What runs inside the guest: PID 1, the pytest session, and the channel to the host.

Nothing here is imported on the host, but for tests. Imports: pytest_smol's protocol.wire, marker and errors.
"""
