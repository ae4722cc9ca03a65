"""Makes machines, some before a test needs them, as far as the host's memory allows.

May be imported: ``Pool``, ``MachineFactory``, ``admission.Ledger``.
Imports: machine, engines, snapshots, guest_os, virtiofs, host.
"""
