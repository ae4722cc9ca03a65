"""What an engine's process may do on the host, held by the kernel: Landlock, seccomp, limits.

May be imported by engines; an engine gives the rules that its program needs. Imports: host, errors.
"""
