"""The guest's kernel and initramfs, the command that starts its Python, and views of the host's files.

May be imported: ``boot_files``, ``initramfs``, ``interpreter`` and ``kernel_parameters`` by what boots
machines, ``host_view`` and ``host_paths`` by what shows files to guests or checks the names of such files.
Imports: virtiofs (views, hiding, digests of files), host, errors.
"""
