"""Writers, a server and a bad network for some minutes: ``python -m tests.soak --minutes 10 --seed 1``.

Real processes write runs with real files, from RunEngines and from composed documents, through a proxy into a real
server. Meanwhile what `faults` has in store befalls them: requests are lost, cut, doubled, late, answered wrongly or by
somebody else; writers and the server are killed and begun again; disks are full. Beside each writer goes a journal of
what it was given and what it has taken. When all is over, what is left is delivered, and each run of the journal is
compared with the catalog, document by document, and frame by frame through the server and straight from the files.
The seed decides what happens, but for how the machine divides its time.
"""
