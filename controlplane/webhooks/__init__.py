"""Webhooks: other servers are told what happens to control.

In reading order: ``adding`` (a new one, and its secret), ``outbox`` (what is to be delivered is
written with its event), ``deliveries`` (sending it, signed, in order), ``posting`` (one POST to an
address that somebody has entered), ``worker`` (who delivers: ``manage.py deliver_webhooks``).
"""
