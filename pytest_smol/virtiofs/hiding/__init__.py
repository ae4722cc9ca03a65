"""Which host files no guest may see, by name and by content, and which are shown with their secrets redacted.

``rules`` (what the user may change of it), ``secrets`` (the decisions), ``redaction`` and ``globs`` may be
imported. Imports: host.
"""
