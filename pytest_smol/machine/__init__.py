"""One machine as the host sees it: its VM, the channel to its guest, its console, the user's terminal, its death.

May be imported by whatever talks with a guest.
Imports: engines.protocol, virtiofs, reports, protocol, host; nothing that makes machines.
"""
