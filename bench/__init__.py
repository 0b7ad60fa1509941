"""``make bench``: our server beside websockify and a plain C relay (docs/benchmarks.md).

One client, which is this process, and one fake VNC server are used with all of them.
"""
