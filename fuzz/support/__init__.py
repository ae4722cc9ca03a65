"""What fuzz targets share: decisions out of bytes, messages to change, and a run with plugins."""
