"""Several processes behind one port: each is a whole proxy, and the kernel deals out connections.

Every worker listens on a socket of its own (SO_REUSEPORT), so that one that dies takes only what it
had accepted with it, and the others are asked from then on.
"""

from server.workers.supervisor import serve_workers

__all__ = ["serve_workers"]
