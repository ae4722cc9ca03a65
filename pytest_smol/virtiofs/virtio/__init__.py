"""Guest memory and virtqueues (virtio 1.2, section 2): every address that a guest gives is checked.

May be imported: ``memory`` and ``vring`` by back ends, ``memory`` by the doctor. Imports: errors.
"""
