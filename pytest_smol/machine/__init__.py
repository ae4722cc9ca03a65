"""One machine as the host sees it: the channel to its guest, its consoles, the user's terminal, its death.

May be imported by whatever talks with a guest.
Imports: engines, virtiofs, protocol, host; nothing that makes machines.
"""
