"""The host's ends of the plugins whose data comes from guests: checked first, then given to the plugin.

None of these plugins is imported by a module here when it is loaded: a plugin that is in use has been
loaded by pytest. ``shapes`` has what data is checked against, ``bridge`` what all have in common.

May be imported: ``registry``. Imports: artifacts.visible, reports, errors.
"""
