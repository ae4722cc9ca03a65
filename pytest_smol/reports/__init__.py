"""Guest messages to pytest's reports and nodes: schemas, cleaned text, what is shown, message budgets.

Imports: protocol, settings, marker, errors.
"""
