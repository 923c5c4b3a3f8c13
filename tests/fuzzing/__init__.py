"""Damaged files, registrations, spools, documents and packs, in numbers: ``python -m tests.fuzzing --help``.

What is tried is made of a seed and a number, so that each comes again: ``--only hdf5 --seed 1 --case 1234``. A case is
a finding if it ends in an exception that is none of ours, takes longer than two seconds or more than 1 GB, or ends
the interpreter. Values that are not those of the original, though nothing touched them, are counted beside: metadata
without checksums often gives no way to know.
"""
