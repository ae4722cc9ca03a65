"""The tests in ``project`` are run in machines by those here, not by the run that collects these."""

collect_ignore = ["project"]
