"""What the host has: processes, memory, cores, the user's cache directory, a run's directory, signals.

Imports: errors only.
"""
