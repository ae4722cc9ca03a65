"""What runs virtual machines: one folder for each engine, and how they are confined.

Imports: host, errors. Nothing outside knows which engine runs, but for what chooses it.
"""
