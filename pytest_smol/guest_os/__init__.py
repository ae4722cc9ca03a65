"""What a guest boots and sees: kernel, initramfs, the interpreter's start, views of the host's files.

Imports: virtiofs (views, hiding), host, errors.
"""
