"""What the host has: processes, memory, cores, the user's cache directory, a run's directory, signals.

May be imported: all modules, by all other packages of the host. Imports: errors only.
"""
