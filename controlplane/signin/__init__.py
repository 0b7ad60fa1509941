"""Signing in, from the form to the session.

In reading order: ``pages`` (the form, the way to a provider and back), ``failures`` (how often a
password may be wrong), ``steps`` (what is asked for before the session begins), ``secondfactor``
and ``secondfactorpages`` (codes from an authenticator), ``provider`` (people who come from an
OpenID provider), ``proxy`` (people whom a proxy in front has signed in).

Which sessions count is said outside of it, in ``controlplane/backends.py``, ``providerusers.py``
and ``proxyusers.py``: sessions hold the dotted paths of these backends, so they stay.
"""
