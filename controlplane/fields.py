"""A text field that is encrypted at rest.

``django-fernet-encrypted-fields`` was looked at: it returns the ciphertext, silently, when no key
fits,
so an unreadable password would be sent to the desktop. Here it reads as an ``UnreadableSecret``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

from controlplane import crypto

if TYPE_CHECKING:
    _TextField = models.TextField[str, str]
else:
    _TextField = models.TextField


class UnreadableSecret(str):
    """Reads as empty text; keeps the ciphertext, so that saving its row loses nothing."""

    ciphertext: str

    def __new__(cls, ciphertext: str) -> UnreadableSecret:
        secret = super().__new__(cls, "")
        secret.ciphertext = ciphertext
        return secret


class EncryptedTextField(_TextField):
    """Text that is stored encrypted with the newest SECRET_KEY.

    Empty text is stored as empty. Comparing in queries is not possible: each write differs.
    """

    def get_prep_value(self, value: Any) -> Any:
        """Encrypt on the way to the database."""
        if isinstance(value, UnreadableSecret):
            return value.ciphertext
        text = super().get_prep_value(value)
        return crypto.encrypt(self._purpose, text) if text else ""

    def from_db_value(self, value: str | None, *_: object) -> str:
        """Decrypt on the way from the database."""
        if not value:
            return ""
        try:
            return crypto.decrypt(self._purpose, value)
        except crypto.Unreadable:
            return UnreadableSecret(value)

    @property
    def _purpose(self) -> str:
        return f"{self.model._meta.label_lower}.{self.name}"
