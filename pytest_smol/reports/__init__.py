"""Guest messages to pytest's reports and nodes: schemas, cleaned text, what is shown, message budgets.

May be imported: all modules, by session, artifacts and machine; ``text`` by the plugin.
Imports: protocol, settings, marker, errors.
"""
