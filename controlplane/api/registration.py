"""A desktop that reports where it is, with the registration token of its workspace."""

from __future__ import annotations

from django.http import HttpRequest
from ninja import Router
from ninja.errors import AuthenticationError
from ninja.security import HttpBearer

from controlplane import ratelimits, schemas
from controlplane.api.auth import ip_of
from controlplane.api.errors import FAILURES
from controlplane.exceptions import InvalidRequest
from controlplane.models import Workspace
from controlplane.presenters import Json
from controlplane.workspaces import registration

router = Router(tags=["registration"])


class RegistrationBearer(HttpBearer):
    """A desktop: ``Authorization: Bearer <registration token>`` of the workspace in the path."""

    openapi_description = "The registration token of the workspace."

    def authenticate(self, request: HttpRequest, token: str) -> Workspace:
        """Return the workspace; 401 where there is none, or the token is another's."""
        address, match = request.META.get("REMOTE_ADDR") or "", request.resolver_match
        ratelimits.check_bad_tokens(address)
        workspace = registration.find(match.kwargs["slug"], token) if match else None
        if workspace is None:
            ratelimits.count_bad_token(address)
            raise AuthenticationError
        return workspace


@router.post(
    "/workspaces/{slug:slug}/register",
    auth=RegistrationBearer(),
    response={200: schemas.Registered, **FAILURES},
)
def register(request: HttpRequest, slug: str, body: schemas.RegisterBody) -> Json:
    """Set the workspace's address to where its desktop says it is; the same again changes nothing.

    With only a port, or nothing, that is the address the call comes from. Where desktops may be
    (DISPLAY_UPSTREAM_ALLOW) holds here as well.
    """
    workspace = registration.report(slug, _reported(request, body))
    return {"id": workspace.slug, "upstream_url": workspace.upstream_url}


def _reported(request: HttpRequest, body: schemas.RegisterBody) -> str:
    if body.upstream_url is not None and body.port is not None:
        raise InvalidRequest("port", "give either upstream_url or port, not both")
    if body.upstream_url is not None:
        return body.upstream_url
    ip = ip_of(request)
    if ip is None:
        raise InvalidRequest("port", "your own address is not known here; give upstream_url")
    return registration.address_of(ip, body.port or registration.DEFAULT_PORT)
