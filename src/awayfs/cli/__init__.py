"""The commands: what a person types, turned into requests to daemons and readable answers.

    main       the group of commands, loaded one at a time; every error as one line
    show       sizes, times, tables, JSON, and names that are safe on a terminal
    ask        from SCOPE and PATH to daemons, and the requests to them
    progress   the bar on a terminal
    mounting, mountpoint, spawn, ending  mount, umount
    status, modes, pins, journal, conflicts, volumes, doctor, demo     one topic each

``--json`` prints what the daemon answered. A command that names one PATH or mount point
prints one object; one that is about all mounts prints a list, or lists inside an object.
"""
