"""The test process's streams and terminals: markers in output, pseudo-terminals, debuggers, the pump.

May be imported: ``debugging``, ``pty`` and ``streams`` by the runner, ``pump`` by PID 1.
Imports: port, and pytest_smol's protocol.
"""
