"""A run as it grows, and how the delivery of all is doing: for whoever watches."""
