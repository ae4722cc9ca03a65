"""Which host files a guest depends on: recorded while a snapshot is made, compared before it is used.

May be imported: dependency (the value), recorder, comparison. Imports: errors.
"""
