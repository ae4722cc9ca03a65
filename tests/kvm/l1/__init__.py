"""A host with KVM where there is none: a virtual machine whose emulated processor has AMD's SVM.

QEMU's TCG emulates SVM, so a stock Linux under it loads its real ``kvm_amd``. In the terms of KVM's
documentation that Linux is L1, and the guests that it runs are L2. It is made of the package's own parts:
its root is a view of this host's files, so nothing is copied, and nothing it writes reaches the host.

``run`` is the command line. The agent runs in L1 and imports nothing of this package.
"""

#: The environment variable that scripts/kvm sets: tests fail without KVM, and are not skipped.
REQUIRED = "SMOL_TEST_KVM"

#: Set as well where the host is emulated, so that everything takes long.
EMULATED = "SMOL_TEST_EMULATED"
