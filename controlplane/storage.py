"""Static files with a hash of their content in the name, imports between modules included."""

from __future__ import annotations

from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedStaticFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # untyped
    """An upgrade never mixes old and new scripts: modules import each other by hashed name."""

    support_js_module_import_aggregation = True
