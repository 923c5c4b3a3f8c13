"""The package with one thing in it changed, and whether a test notices: ``python -m tests.mutants --help``.

The mutants are made by `mutating`, of `ast`. Neither cosmic-ray (8.7) nor mutmut (3.8) makes those that were tried by
hand at first and gave wrong frames: both change operators, numbers and names, and none leaves out a statement, a
condition or a clause of SQL. Each is run against the modules of tests that mirror the changed one (`subjects`), the
fast ones first, in a copy of the tree. Which ones is chosen by a seed. A mutant that survives shows what no test looks
at: it gets one, or stands in `equivalent.txt` with the reason why nobody could tell it from the package.
"""
