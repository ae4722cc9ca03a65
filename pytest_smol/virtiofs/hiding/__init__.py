"""Which host files no guest may see, by name, and which are shown with their secrets redacted."""
