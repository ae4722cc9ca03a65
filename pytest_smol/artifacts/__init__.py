"""What guests send beside reports: files, lists of what tests wrote, and what plugins gathered.

Imports: reports, virtiofs (hiding), guest_os (which files are hidden), settings, errors.
"""
