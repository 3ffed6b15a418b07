"""The daemon's interface for commands: where things are, what is said, who serves and asks.

    paths      where state and sockets are; refuses directories that others can enter
    urls       what a volume's URL may look like, its canonical form, a volume's id
    options    ``-o`` options, for commands and daemon alike
    volumes    ``volume.json``: what is known of a volume without its daemon
    mounts     which mounts there are, and which one a path is in
    handshake  how ``awayfs mount`` starts a daemon and learns that it is ready
    messages   the lines on the socket, and the error they carry
    server     answers requests (asyncio, in the daemon)
    client     asks (plain sockets, in a command)

Everything a command needs avoids slow imports: a command is a short life.
"""
