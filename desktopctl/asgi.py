"""The ASGI entry point: HTTP to Django, the display websocket to its consumer."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

from controlplane import memory

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desktopctl.settings")
memory.collect_less_often()
django_application = get_asgi_application()  # first: what follows needs the app registry

from controlplane.housekeeping import keeps_house  # noqa: E402  (see above)
from controlplane.longpoll import LongPolls  # noqa: E402  (see above)
from controlplane.proxies import TrustedProxies  # noqa: E402  (see above)
from controlplane.requestids import RequestIds  # noqa: E402  (see above)
from controlplane.routing import websocket_urlpatterns  # noqa: E402  (see above)

memory.keep_freed_memory()
_routes = ProtocolTypeRouter(
    {"http": LongPolls(django_application), "websocket": URLRouter(websocket_urlpatterns)}
)
application = TrustedProxies(RequestIds(keeps_house(_routes)))
memory.spare_what_stays()  # last: all is loaded
