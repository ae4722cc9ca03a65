"""Machines made ahead of need, and which of them the host has room for.

May be imported: ``Pool``, ``MachineFactory``, ``admission.Ledger``.
Imports: machine, engines, snapshots, guest_os, virtiofs, host.
"""
