"""What the environment says about desktopctl, for tests and measurements."""

from __future__ import annotations

import os

SECRET_KEY = "only-for-tests-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJ"

_OURS = (
    *("DEBUG", "SECRET_KEY", "SECRET_KEY_FALLBACKS", "PUBLIC_URL", "ALLOWED_HOSTS"),
    *("CSRF_TRUSTED_ORIGINS", "TRUSTED_PROXIES", "EMBED_ORIGINS", "DATABASE_URL", "REDIS_URL"),
    *("WEBHOOK_ALLOW", "METRICS_TOKEN", "LOG_FORMAT", "TRUST_REQUEST_ID", "SIGNIN_TOTP"),
)
_OUR_GROUPS = ("API_RATE_", "AUTH_PROXY_", "DISPLAY_", "OIDC_")


def prepare() -> None:
    """Forget what the caller's shell says: we decide it ourselves. Set what cannot be left out."""
    for name in list(os.environ):
        if name.removesuffix("_FILE") in _OURS or name.startswith(_OUR_GROUPS):
            del os.environ[name]
    os.environ["SECRET_KEY"] = SECRET_KEY
