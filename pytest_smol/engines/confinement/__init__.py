"""What an engine's process may do on the host, held by the kernel: Landlock, seccomp, limits.

May be imported by engines and by what chooses them. Imports: host, errors.
"""
