"""What tests leave: written files are found, matched and sent, with what plugins gathered.

``plugin_bridges`` is the guest's side of pytest_smol/artifacts/plugins.
"""
