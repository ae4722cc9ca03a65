"""The QEMU engine: its program, command line, control protocol (QMP), accelerators and the doctor's checks.

Everything that says QMP, chardev, migrate or -cpu is here. May be imported: by ``engines.choice`` only.
Imports: engines.protocol, engines.confinement, engines.kvm, virtiofs (the vhost-user transport), settings,
host, errors.
"""
