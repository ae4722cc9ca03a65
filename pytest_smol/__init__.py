"""pytest-smol runs tests in forked microVMs.

PYTEST_DONT_REWRITE: the guest has parts of this package loaded before pytest starts.
"""
