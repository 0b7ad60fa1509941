"""Second factors: an authenticator's codes (TOTP, RFC 6238) and recovery codes (``SIGNIN_TOTP``).

django-allauth makes the secrets, the codes and the picture to scan, and keeps the rows. What is
ours: which code counts, once and on all nodes; how often one may be wrong; and that there is no
session before it has been right.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from allauth.account.stages import LoginStage
from allauth.core.internal.cryptokit import compare_user_code
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal import auth as totp
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.crypto import constant_time_compare
from django.utils.timezone import now

from controlplane import crypto
from controlplane.backends import PeopleBackend
from controlplane.conf import TOTP_REQUIRED
from controlplane.exceptions import TooManyRequests
from controlplane.signin import failures
from controlplane.signin.steps import is_a_providers_word

logger = logging.getLogger(__name__)

_PURPOSE = "second factor"  # of the key that its secrets are encrypted with
_SPENT = "spent_step"  # in an authenticator's data: the time step of its newest code that counted
_WRONG, _SINCE = "wrong", "wrong_since"  # there, too: how many codes were wrong, since when (s)
_PENDING = "second_factor_of_"  # in a session: the encrypted secret of somebody who enrols
_AUTH_HASH = "auth_hash"  # in a sign-in that waits for its code: that of the user, as in a session

MAX_WRONG = 10  # codes for one person, from anywhere, …
WRONG_SECONDS = 15 * 60  # … in this time since the first of them


class Secrets(DefaultMFAAdapter):  # type: ignore[misc]  # untyped
    """What the database keeps of secrets, and what the picture to scan says."""

    def encrypt(self, text: str) -> str:
        """Return it as it is kept."""
        return crypto.encrypt(_PURPOSE, text)

    def decrypt(self, encrypted_text: str) -> str:
        """Return what ``encrypt`` was given; crypto.Unreadable where no key fits."""
        return crypto.decrypt(_PURPOSE, encrypted_text)

    def get_totp_label(self, user: User) -> str:
        """Return whose it is."""
        return user.get_username()


class Step(LoginStage):  # type: ignore[misc]  # untyped
    """The step of a sign-in that asks for a code, or lets somebody enrol who must."""

    key = "second_factor"

    def handle(self) -> tuple[HttpResponse | None, bool]:
        """Return where to go for it, or nothing where it is not called for."""
        self.state[_AUTH_HASH] = self.login.user.get_session_auth_hash()
        if is_enrolled(self.login.user):
            return redirect("code"), True
        if settings.SIGNIN_TOTP == TOTP_REQUIRED and not self._is_the_providers:
            return redirect("second_factor"), True
        return None, True

    @property
    def stands(self) -> bool:
        """Whether it has not ended with a new password, or with the account, as a session does."""
        user = self.login.user
        if user is None or not PeopleBackend().user_can_authenticate(user):
            return False
        return constant_time_compare(self.state[_AUTH_HASH], user.get_session_auth_hash())

    @property
    def _is_the_providers(self) -> bool:
        """Whether a provider vouches for them: asking for more is then its matter."""
        return is_a_providers_word(self.login.signal_kwargs)


@dataclass(frozen=True, slots=True)
class Key:
    """What somebody who enrols puts into their authenticator: a secret, and it as a picture."""

    secret: str
    svg: str


def is_enrolled(user: User) -> bool:
    """Whether a code is asked for when they sign in."""
    devices = Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP)
    return bool(devices.exists())


def key_of(request: HttpRequest, user: User) -> Key:
    """Return the key to enrol with: one for a session and person, until they have enrolled."""
    secret = _pending_secret(request, user)
    if not secret:
        secret = totp.generate_totp_secret()
        request.session[_pending_of(user)] = Secrets().encrypt(secret)
    made = Secrets()
    return Key(secret, made.build_totp_svg(made.build_totp_url(user, secret)))


def _pending_of(user: User) -> str:
    return f"{_PENDING}{user.pk}"


def _pending_secret(request: HttpRequest, user: User) -> str:
    try:
        return Secrets().decrypt(request.session.get(_pending_of(user), ""))
    except crypto.Unreadable:
        return ""  # there is none yet, or SECRET_KEY has changed


def enrol(request: HttpRequest, user: User, code: str) -> list[str] | None:
    """Enrol with the session's secret if the code is right; return the recovery codes, or None."""
    secret = _pending_secret(request, user)
    step = _step_of(secret, code) if secret else None
    if step is None:
        return None
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)
        if is_enrolled(user):
            return None
        remove(user)  # recovery codes of a former device, if any are left
        device = totp.TOTP.activate(user, secret).instance
        device.data[_SPENT] = step
        device.save(update_fields=["data"])
        codes: list[str] = RecoveryCodes.activate(user).generate_codes()
    del request.session[_pending_of(user)]
    logger.info("%s has a second factor", user.get_username())
    return codes


def renew_recovery_codes(user: User) -> list[str]:
    """Make the former ones useless; return the new ones."""
    with transaction.atomic():
        Authenticator.objects.filter(user=user, type=Authenticator.Type.RECOVERY_CODES).delete()
        codes: list[str] = RecoveryCodes.activate(user).generate_codes()
    return codes


def recovery_codes_left(user: User) -> int:
    """How many of them have not been used."""
    row = Authenticator.objects.filter(user=user, type=Authenticator.Type.RECOVERY_CODES).first()
    return len(row.wrap().get_unused_codes()) if row else 0


def remove(user: User) -> bool:
    """Let them sign in without, or enrol anew; whether there was anything."""
    removed, _ = Authenticator.objects.filter(user=user).delete()
    return bool(removed)


def accept(request: HttpRequest, user: User, code: str) -> bool:
    """Whether it is a code of theirs; then it is spent. PermissionDenied, unseen, for a guesser.

    A wrong one counts as a wrong password does, and for the person, whatever address it is from.
    """
    failures.check_guesses(request, user)
    try:
        is_theirs = _spend(user, code)
    except TooManyRequests as refusal:
        failures.refuse_unseen(request, refusal.retry_after)
    if is_theirs:
        return True
    failed = {"credentials": failures.credentials_of(user), "request": request}
    user_login_failed.send(sender=__name__, **failed)
    return False


@transaction.atomic
def _spend(user: User, code: str) -> bool:
    """Whether it is theirs; a wrong one is counted. TooManyRequests, unseen, after too many."""
    rows = Authenticator.objects.select_for_update().filter(user=user).order_by("pk")  # all alike
    kinds = {row.type: row for row in rows}
    device = kinds.get(Authenticator.Type.TOTP)
    if device is None:
        return False  # removed meanwhile
    _check_wrong_codes(device)
    try:
        if _spend_step(device, code) or _spend_recovery_code(
            kinds.get(Authenticator.Type.RECOVERY_CODES), code
        ):
            return True
    except crypto.Unreadable:
        logger.error("No key fits the second factor of %s", user.get_username())
    _count_wrong_code(device)
    return False


def _check_wrong_codes(device: Authenticator) -> None:
    left = device.data.get(_SINCE, 0) + WRONG_SECONDS - time.time()
    if left > 0 and device.data[_WRONG] >= MAX_WRONG:
        raise TooManyRequests(math.ceil(left))


def _count_wrong_code(device: Authenticator) -> None:
    at = time.time()
    if at >= device.data.get(_SINCE, 0) + WRONG_SECONDS:
        device.data |= {_SINCE: at, _WRONG: 0}
    device.data[_WRONG] += 1
    device.save(update_fields=["data"])


def _spend_step(device: Authenticator, code: str) -> bool:
    """Whether it is a code of a later time step than each that has counted before."""
    step = _step_of(Secrets().decrypt(device.data["secret"]), code)
    if step is None or step <= device.data.get(_SPENT, 0):
        return False
    device.data[_SPENT] = step
    device.last_used_at = now()
    device.save(update_fields=["data", "last_used_at"])
    return True


def _spend_recovery_code(row: Any, code: str) -> bool:
    if row is None or not row.wrap().validate_code(code):
        return False
    row.record_usage()
    logger.warning("%s has used a recovery code", row.user.get_username())
    return True


def _step_of(secret: str, code: str) -> int | None:
    """Return the time step, of those around now, that the code is of."""
    for step in totp.yield_hotp_counters_from_time():
        expected = totp.format_hotp_value(totp.hotp_value(secret, step))
        if compare_user_code(actual=code, expected=expected):
            return int(step)
    return None


@transaction.atomic
def reencrypt(pk: int) -> bool:
    """Write a row's secret anew with the present key; False where none fits it, or it is gone."""
    row = Authenticator.objects.select_for_update().filter(pk=pk).first()
    if row is None:
        return False
    secrets = Secrets()
    names = {"secret", "seed"} & row.data.keys()
    try:
        row.data |= {name: secrets.encrypt(secrets.decrypt(row.data[name])) for name in names}
    except crypto.Unreadable:
        return False
    row.save(update_fields=["data"])
    return True


def unreadable(rows: Iterable[Authenticator]) -> list[str]:
    """Name those whose secret none of our keys fits."""
    return [f"second factor of {row.user}" for row in rows if not _is_readable(row)]


def _is_readable(row: Authenticator) -> bool:
    try:
        for name in {"secret", "seed"} & row.data.keys():
            Secrets().decrypt(row.data[name])
    except crypto.Unreadable:
        return False
    return True
