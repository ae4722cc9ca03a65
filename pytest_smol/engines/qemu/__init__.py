"""The QEMU engine: its program, command line, control protocol (QMP) and accelerators.

Everything that says QMP, chardev, migrate or -cpu is here.
"""
