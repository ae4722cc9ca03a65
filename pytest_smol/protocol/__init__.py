"""What host and guest say to each other: the table of messages, frames, the order of output.

May be imported: ``wire`` on both sides, ``output_order`` on the host. Imports: nothing of ours.
"""
