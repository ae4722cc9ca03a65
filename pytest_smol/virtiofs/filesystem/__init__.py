"""The tree that a guest sees: nodes, attributes, listings, and how host files are reached."""
