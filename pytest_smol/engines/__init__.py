"""What runs virtual machines: one folder for each engine, and how their processes are confined.

May be imported: ``protocol`` (what an engine offers) and ``choice`` (which one to use); what is in the folder
of an engine only by ``choice`` and by tests of that engine.
Imports: virtiofs (transports of the file server), settings, host, errors.
"""
