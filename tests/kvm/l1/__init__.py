"""A host with KVM where there is none: a virtual machine whose emulated processor has AMD's SVM.

QEMU's TCG emulates SVM, so a stock Linux under it loads its real ``kvm_amd``. In the terms of KVM's
documentation that Linux is L1, and the guests that it runs are L2. It is made of the package's own parts:
its root is a view of this host's files, so nothing is copied, and nothing it writes reaches the host.

``run`` is the command line. The agent runs in L1 and imports nothing of this package.
"""

import os

#: The environment variable that scripts/kvm sets: tests fail without KVM, and are not skipped.
REQUIRED = "SMOL_TEST_KVM"

#: Set as well where the host is emulated, so that everything takes long.
EMULATED = "SMOL_TEST_EMULATED"

#: Set as well where the clock of the emulated host counts instructions.
COUNTED = "SMOL_TEST_COUNTED"

#: What tests that make machines themselves ask for: where scripts/kvm runs them, TCG must not do instead.
ACCELERATOR = "kvm" if REQUIRED in os.environ else "auto"

#: The exit status of a run that could be made neither on this host nor in an emulated one.
SKIPPED = 77

#: The folders with tests that are marked for KVM.
FOLDERS = ("tests/kvm", "tests/vm", "tests/hostile")

#: What scripts/kvm runs without arguments, and what scripts/test runs of it.
ALL = ("-m", "kvm", *FOLDERS)
QUICK = ("-m", "kvm and not kvm_long", *FOLDERS)
