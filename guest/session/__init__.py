"""pytest in the guest: its plugin's hooks, the collected tree, the reporter, the end of the run.

``collection``, ``plugin``, ``run_end`` and ``xdist`` are the guest's ends of what pytest_smol/plugin.py and
pytest_smol/session do on the host. May be imported: all modules, by the runner and the warm-up.
Imports: terminal, identity, port, and pytest_smol's marker, errors and protocol.
"""
