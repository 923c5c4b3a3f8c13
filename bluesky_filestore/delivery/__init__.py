"""What is in a spool, brought to a catalog by a thread of its own."""
