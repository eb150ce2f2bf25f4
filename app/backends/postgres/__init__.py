"""Many replicas on one PostgreSQL database: who ticks, and how they wake each other.

::

    standing by ──lock free──► leading ──ping fails, lock lost, resigned──► standing by
         │                        │
         └─holder silent for 10 s─┘ its connection is ended, which frees the lock

What happens when: the leader's process dies, and PostgreSQL frees the lock at once, so another
replica leads within a second; it is stopped or cut off, and its silence ends its connection; it
wakes up again, and its trust in itself is over and its term is not the present one, so it commits
no tick. Notifications may be lost with a connection: every replica also looks by itself.
"""
