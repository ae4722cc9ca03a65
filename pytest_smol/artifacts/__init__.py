"""What guests send besides reports: files, lists of what tests wrote, and the data of plugins.

``collector`` belongs to a run, ``incoming`` to a machine, ``files`` writes below the project's root,
``visible`` knows which host files a guest may name, ``plugins`` has one module for each bridged plugin.

May be imported: ``collector``, ``incoming``, ``written_paths`` and ``plugins`` by session and the plugin.
Imports: reports, virtiofs (hiding), guest_os (which files are hidden), host, settings, errors.
"""
