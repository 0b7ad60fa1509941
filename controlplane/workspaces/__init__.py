"""Setting workspaces up: in the admin, by the API, with a file, or by the desktop itself.

In reading order: ``configuring`` (the one way in which all of them change a workspace), ``files``
(many of them as a file, read and written), ``sync`` (carrying such a file out), ``registration``
(a desktop reports where it is).
"""
