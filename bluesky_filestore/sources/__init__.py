"""Documents from elsewhere: each module is one kind of source, and gives ``(name, doc)`` pairs in their order."""
