"""What tests leave: written files are found, matched and sent, with what plugins gathered.

``plugin_bridges`` are the guest's ends of the host's pytest_smol/artifacts.
"""
