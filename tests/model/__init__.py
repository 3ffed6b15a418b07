"""Random work of two clients and of others on the server, held against what was promised.

``tests.model.machine`` has the rules and the invariants, ``world`` the parts that it moves:

    python -m tests.model --seconds 600 --seed 1     look for failures for ten minutes
    python -m tests.model --sequences 1000 --seed 1  so many sequences; the same each time
    python -m tests.model --machine decided          decisions amid all, and a server that refuses

A seed decides all that is done. What is up to the clock is whether a file was changed so lately
that its token is still weak: a digest more or less is asked for, and what is sent at the same time
may then arrive in another order.

A failure is shrunk and printed as a script that can be pasted into a test, with what happened.
"""
