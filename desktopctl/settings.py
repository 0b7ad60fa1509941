"""Django settings, all from the environment (the table is in README.md).

Every secret may also come from a file: ``SECRET_KEY_FILE`` instead of ``SECRET_KEY``, and so on.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from controlplane import conf, logs, ratelimits
from controlplane.proxies import check_headers, parse_header, parse_networks

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

env = conf.Environment()

# --- Who we are to the outside ------------------------------------------------------------------
DEBUG = env.bool("DEBUG", False)
SECRET_KEY = env.str("SECRET_KEY", "")
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", [])

PUBLIC_URL = env.str("PUBLIC_URL", "http://localhost:8000").rstrip("/")
_public = conf.split_url("PUBLIC_URL", PUBLIC_URL, "http", "https")
IS_HTTPS = _public.scheme == "https"

ALLOWED_HOSTS = [
    *env.list("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"]),
    _public.hostname or "",  # never empty: split_url has looked
]
_origins: list[str] = env.list("EMBED_ORIGINS", [])
EMBED_ORIGINS = [conf.parse_origin("EMBED_ORIGINS", origin) for origin in _origins]
CSRF_TRUSTED_ORIGINS = [
    *env.list("CSRF_TRUSTED_ORIGINS", []),
    f"{_public.scheme}://{_public.netloc}",
]
TRUSTED_PROXIES = parse_networks("TRUSTED_PROXIES", env.list("TRUSTED_PROXIES", []))
TRUST_REQUEST_ID = env.bool("TRUST_REQUEST_ID", False)

# Signing in at the proxy. Off unless it is named: the header says who somebody is.
AUTH_PROXY_HEADER = parse_header("AUTH_PROXY_HEADER", env.str("AUTH_PROXY_HEADER", ""))
AUTH_PROXY_GROUPS_HEADER = parse_header(
    "AUTH_PROXY_GROUPS_HEADER", env.str("AUTH_PROXY_GROUPS_HEADER", "")
)
check_headers(AUTH_PROXY_HEADER, AUTH_PROXY_GROUPS_HEADER, TRUSTED_PROXIES)

# Signing in with an OpenID provider. Off unless there is one.
OIDC_ISSUER = conf.parse_issuer("OIDC_ISSUER", env.str("OIDC_ISSUER", ""))
OIDC_CLIENT_ID = env.str("OIDC_CLIENT_ID", "")
OIDC_CLIENT_SECRET = env.str("OIDC_CLIENT_SECRET", "")
OIDC_NAME = env.str("OIDC_NAME", "your organisation")
OIDC_SCOPES: list[str] = env.list("OIDC_SCOPES", ["profile", "email"])
OIDC_USERNAME_CLAIM = env.str("OIDC_USERNAME_CLAIM", "preferred_username")
OIDC_GROUPS_CLAIM = env.str("OIDC_GROUPS_CLAIM", "")
OIDC_ADD_PEOPLE = env.bool("OIDC_ADD_PEOPLE", True)
conf.check_together(
    OIDC_ISSUER=OIDC_ISSUER, OIDC_CLIENT_ID=OIDC_CLIENT_ID, OIDC_CLIENT_SECRET=OIDC_CLIENT_SECRET
)

# A code from an authenticator after the password.
SIGNIN_TOTP = conf.choose("SIGNIN_TOTP", env.str("SIGNIN_TOTP", "off"), conf.TOTP_MODES)

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if IS_HTTPS else 0
SECURE_SSL_REDIRECT = False  # the proxy that ends TLS redirects; we only ever see its requests
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # HSTS for subdomains: they are not ours, and may speak plain http
    "security.W008",  # redirecting to https: see above
    "security.W021",  # preloading HSTS is for whoever owns the domain to ask for
]

# --- What browsers may do with our pages ----------------------------------------------------------
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
# Everything is ours and lies in files: nothing inline, nothing from elsewhere. “data:” is for what
# noVNC draws (JPEG rectangles, pointers) and for icons in stylesheets. “'self'” lets the page dial
# displays, too: ws:// and wss:// of the same host. The page of control links has ancestors of its
# own (views.embed).
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}
# The clipboard and the whole screen are what the page needs; the rest it could only be abused for.
PERMISSIONS_POLICY = (
    "clipboard-read=(self), clipboard-write=(self), fullscreen=(self), "
    "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), "
    "magnetometer=(), microphone=(), midi=(), payment=(), screen-wake-lock=(), serial=(), usb=()"
)

# --- The application ------------------------------------------------------------------------------
INSTALLED_APPS = [
    "daphne",  # first: it replaces runserver with one that speaks ASGI
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    # Installed whether in use or not: whoever removes a person must know of their rows.
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "axes",
    "channels",
    "csp",
    "ninja",  # serves the API docs' assets itself, instead of from a CDN
    "controlplane",
]
MIDDLEWARE = [
    "controlplane.middleware.LogMiddleware",
    # First, so that every answer has their headers, the errors that the next ones write included.
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "controlplane.middleware.PermissionsPolicyMiddleware",
    "controlplane.middleware.ApiErrorsMiddleware",
    "controlplane.middleware.ApiRateMiddleware",
    "controlplane.middleware.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "controlplane.middleware.NamedHostMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "desktopctl.urls"
ASGI_APPLICATION = "desktopctl.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTHENTICATION_BACKENDS = ["controlplane.backends.PeopleBackend"]
if AUTH_PROXY_HEADER:
    AUTHENTICATION_BACKENDS.append("controlplane.proxyusers.ProxyBackend")
    _after = MIDDLEWARE.index("django.contrib.auth.middleware.AuthenticationMiddleware") + 1
    MIDDLEWARE.insert(_after, "controlplane.middleware.ProxySignInMiddleware")
if OIDC_ISSUER:
    AUTHENTICATION_BACKENDS.append("controlplane.providerusers.ProviderBackend")
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "workspaces"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# Who fails too often with one name from one address waits a quarter of an hour from the last try
# that counted. By both, so that nobody can lock a user out anywhere but at their own address.
# docs/decisions.md says why so often and for so long.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # so the answer can say for how long
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "controlplane.signin.failures.address_of"
AXES_LOCKOUT_CALLABLE = "controlplane.signin.failures.locked_out"
AXES_DISABLE_ACCESS_LOG = True  # who has signed in stands with each user
AXES_ENABLE_ADMIN = False  # controlplane/admin/signins.py
AXES_VERBOSE = False
# Never in the log or the table. A password is often typed where the name belongs, or the code; the
# table cannot do without the name, the log can.
AXES_SENSITIVE_PARAMETERS = ["username", "code", "csrfmiddlewaretoken"]

# Of django-allauth, the conversation with the provider and the steps of a sign-in are used: no
# forms, no mail, no pages of its own (urls.py). docs/decisions.md says why.
ACCOUNT_ADAPTER = "controlplane.signin.steps.Steps"
ACCOUNT_EMAIL_VERIFICATION = "none"
MFA_ADAPTER = "controlplane.signin.secondfactor.Secrets"
MFA_ALLOW_UNVERIFIED_EMAIL = True  # there is no mail
MFA_TOTP_ISSUER = f"desktopctl {_public.hostname}"
MFA_TOTP_TOLERANCE = 1  # time steps of 30 s that a phone's clock may be off, either way
SOCIALACCOUNT_ADAPTER = "controlplane.signin.provider.Policy"
_provider = {
    "provider_id": OIDC_ISSUER,  # people are known by it, and by their id there
    "name": OIDC_NAME,
    "client_id": OIDC_CLIENT_ID,
    "secret": OIDC_CLIENT_SECRET,
    "settings": {
        "server_url": OIDC_ISSUER.rstrip("/"),
        "scope": ["openid", *OIDC_SCOPES],
        "oauth_pkce_enabled": True,
    },
}
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {
        "provider_class": "controlplane.signin.provider.Provider",
        "APPS": [_provider] if OIDC_ISSUER else [],
    }
}

DISPLAY = conf.load(env)
API_RATE_PER_TOKEN = ratelimits.parse_rate(
    "API_RATE_PER_TOKEN", env.str("API_RATE_PER_TOKEN", "600/minute")
)
API_RATE_PER_ADDRESS = ratelimits.parse_rate(
    "API_RATE_PER_ADDRESS", env.str("API_RATE_PER_ADDRESS", "6000/minute")
)

METRICS_TOKEN = conf.parse_token("METRICS_TOKEN", env.str("METRICS_TOKEN", ""))
WEBHOOK_ALLOW = parse_networks("WEBHOOK_ALLOW", env.list("WEBHOOK_ALLOW", []))

# --- Where things are kept ------------------------------------------------------------------------
DATABASES = {
    "default": env.dj_db_url(
        "DATABASE_URL", f"sqlite:///{VAR_DIR / 'desktopctl.sqlite3'}", conn_max_age=0
    )
}
_database = DATABASES["default"]
if _database["ENGINE"] == "django.db.backends.sqlite3":
    # WAL: readers and one writer at a time. IMMEDIATE: a transaction takes the write lock when it
    # begins, so nothing is decided on what was read before. 10 s: how long to wait for that lock.
    _database["OPTIONS"] = {
        "timeout": 10,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    if "/" in str(_database["NAME"]):
        Path(_database["NAME"]).parent.mkdir(parents=True, exist_ok=True)
else:
    # A real pool: under ASGI, persistent connections would leak one per thread. It gives up on a
    # connection when those who wait for one do; whoever asks next makes it try again at once. By
    # default, the pauses between its attempts double for five minutes: after an outage of ten
    # minutes, everything would wait for as long again.
    # The few statements of leases.py are kept prepared from their fifth use on.
    _database.setdefault("OPTIONS", {}).setdefault("prepare_threshold", 5)
    _database["OPTIONS"]["pool"] = {
        "min_size": 1,
        "max_size": 16,
        "timeout": 5,  # seconds
        "reconnect_timeout": 5,
    }
    # Each connection is tried before it is used: after a restart of PostgreSQL, whatever is idle in
    # the pool would cost somebody a 503.
    _database["CONN_HEALTH_CHECKS"] = True
    _database["OPTIONS"].setdefault("connect_timeout", 5)  # seconds
    # A server that has vanished without a word is given up after 5 s, not after 15 minutes.
    _database["OPTIONS"].setdefault("tcp_user_timeout", 5000)  # milliseconds
    # Also while we wait for its answer, when nothing of ours is on the way: else after two hours.
    _database["OPTIONS"].setdefault("keepalives_idle", 5)  # seconds
    _database["OPTIONS"].setdefault("keepalives_interval", 2)
    # The queue of webhooks. It is made of PostgreSQL: on SQLite, their worker does without.
    INSTALLED_APPS.append("procrastinate.contrib.django")
    PROCRASTINATE_ON_APP_READY = "controlplane.webhooks.worker.register"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", "")
if REDIS_URL and not REDIS_URL.startswith("unix://"):
    conf.split_url("REDIS_URL", REDIS_URL, "redis", "rediss")
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "desktopctl"},
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

# --- Static files ---------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = env.path("STATIC_ROOT", VAR_DIR / "static")
NOVNC_DIR = BASE_DIR / "node_modules" / "@novnc" / "novnc"
STATICFILES_DIRS = [
    BASE_DIR / "static",
    *(
        (f"novnc/{part}", NOVNC_DIR / part)
        for part in ("core", "vendor")
        if (NOVNC_DIR / part).is_dir()  # where noVNC is missing, check controlplane.E001 says so
    ),
]
# Collected files carry a hash in their names, imports inside modules too. While nothing has been
# collected (a developer's checkout, the tests), files are served as they lie in the tree.
STATIC_IS_COLLECTED = not DEBUG and (STATIC_ROOT / "staticfiles.json").is_file()
_COLLECTS_NOW = "collectstatic" in sys.argv[:2]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "controlplane.storage.HashedStaticFiles"
        if STATIC_IS_COLLECTED or _COLLECTS_NOW
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = not STATIC_IS_COLLECTED
WHITENOISE_ALLOW_ALL_ORIGINS = False

# --- Language, time, log --------------------------------------------------------------------------
LANGUAGE_CODE = "en"
# A language is offered once all of the pages speak it: with Django's own words alone, half of them.
LANGUAGES = [("en", "English")]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True
LOG_FORMAT = conf.choose("LOG_FORMAT", env.str("LOG_FORMAT", "console"), logs.FORMATS)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "console": {
            "()": "controlplane.logs.RedactingFormatter",
            "format": "{asctime} {levelname:7} {name}: {message}",
            "style": "{",
        },
        "json": {"()": "controlplane.logs.JsonFormatter"},
    },
    "filters": {
        "ids": {"()": "controlplane.logs.IdsFilter"},
        "no_query": {"()": "controlplane.logs.NoQueryFilter"},
    },
    "handlers": {
        "stream": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["ids"]}
    },
    "root": {"handlers": ["stream"], "level": "INFO"},
    "loggers": {
        # Django's own handlers would write unredacted lines beside ours.
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
        # Their DEBUG lines hold what is typed on desktops, and the headers for websockify.
        "uvicorn": {"level": "INFO"},
        "websockets": {"level": "INFO"},
        "uvicorn.access": {"filters": ["no_query"]},
        "uvicorn.error": {"filters": ["no_query"]},
        "daphne": {"level": "WARNING"},
        # A line for each job; webhooks/deliveries.py tells what matters.
        "procrastinate": {"level": "WARNING"},
        # A traceback a second while Redis is away; notices.py and events.py say so once each.
        "channels_redis": {"level": "CRITICAL"},
    },
}
