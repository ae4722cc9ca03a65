"""The guest's kernel and initramfs, the command that starts its Python, and views of the host's files.

Imports: virtiofs (views, hiding, digests of files), host, errors.
"""
