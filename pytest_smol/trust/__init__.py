"""What a project may make the host do in a run with ``--smol``: import, start and write.

May be imported: ``import_guard`` and ``settings_origin`` by the plugin.
Imports: errors only. It is loaded early, so it is small.
"""
