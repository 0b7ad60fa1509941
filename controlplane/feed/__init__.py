"""The feed of events (``GET /api/events``): what happens to control, told as it happens.

In reading order: ``eventstreams`` (who listens, and what waits to be sent to whom), ``reader``
(what they are told), ``tail`` (reading events without losing any).
"""
