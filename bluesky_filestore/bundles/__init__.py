"""A run with its files as one thing: packed and unpacked, moved, and shown as one file."""
