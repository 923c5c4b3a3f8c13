"""A run as it grows: followed event by event, and shown."""
