"""The Remote Framebuffer protocol, sans-I/O: bytes in, decisions and bytes out.

Nothing here knows a socket, a clock or Django. Section numbers are those of RFC 6143; "rfbproto"
is the community specification, which describes the extensions.
"""
