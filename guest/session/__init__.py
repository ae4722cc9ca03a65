"""pytest in the guest: its plugin's hooks, the collected tree, the reporter, the end of the run.

``run_end`` and ``xdist`` are the guest's ends of the host's pytest_smol/session.
"""
