"""KVM's own interface: for now the probe that times a loop on the processor.

May be imported: ``probe``, by engines. Imports: nothing of ours.
"""
