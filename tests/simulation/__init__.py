"""Histories of faults by a seed: the real spool and delivery on a simulated machine, with a simulated catalog."""
