"""What host and guest say to each other: the table of messages, frames, the order of output.

Used on both sides; imports nothing of ours.
"""
