"""What tests leave: written files are found, matched and sent, with what plugins gathered.

``plugin_bridges`` is the guest's side of pytest_smol/artifacts/plugins. May be imported: ``sender`` and
``written_files``, by the runner. Imports: nothing of ours but its own modules.
"""
