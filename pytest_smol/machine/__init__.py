"""One machine as the host sees it: VM, channel to the guest, console, the user's terminal, cause of death.

May be imported by whatever talks with a guest.
Imports: engines.protocol, virtiofs, reports, protocol, host; nothing that makes machines.
"""
