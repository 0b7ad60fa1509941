"""Who has control of what, and ending it, closing it, opening it again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse

from controlplane import access, leases, leaseviews, presenters, streamrows
from controlplane.admin.shared import ReadOnlyAdmin, ask
from controlplane.api.auth import ip_of, user_of
from controlplane.leaseviews import LeaseView
from controlplane.models import MAX_NOTE_LENGTH, Controller, DisplayControlLease

_HELD = Q(ended_at=None, expires_at__gt=Now())


class NoteForm(forms.Form):
    """Why control is ended; its holder reads it."""

    note = forms.CharField(max_length=MAX_NOTE_LENGTH, widget=forms.TextInput(attrs={"size": 60}))


class _StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the states."""
        return [("held", "held"), ("closed", "closed"), ("free", "free, or run out")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[DisplayControlLease]
    ) -> QuerySet[DisplayControlLease]:
        """Keep those in the state."""
        match self.value():
            case "held":
                return queryset.filter(_HELD)
            case "closed":
                return queryset.filter(closed_at__isnull=False)
            case "free":
                return queryset.filter(~_HELD, closed_at=None)
        return queryset


class _ControllerFilter(admin.SimpleListFilter):
    title = "controller"
    parameter_name = "controller"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the kinds of holders."""
        return [(Controller.USER, "a person"), (Controller.AGENT, "an agent")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[DisplayControlLease]
    ) -> QuerySet[DisplayControlLease]:
        """Keep those that such a holder has now: an end that nobody has noted is one, too."""
        kind = self.value()
        return queryset.filter(_HELD, controller=kind) if kind else queryset


class _ConnectedFilter(admin.SimpleListFilter):
    title = "holder"
    parameter_name = "connected"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer both."""
        return [("yes", "connected"), ("no", "not connected")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[DisplayControlLease]
    ) -> QuerySet[DisplayControlLease]:
        """Keep what is held by somebody whose stream is alive, or is not."""
        lately = Now() - timedelta(seconds=streamrows.STALE_SECONDS)
        is_connected = Q(holder_stamped_at__gt=lately)
        match self.value():
            case "yes":
                return queryset.filter(_HELD, is_connected)
            case "no":
                is_silent = Q(holder_stamped_at=None) | Q(holder_stamped_at__lte=lately)
                return queryset.filter(_HELD, is_silent)
        return queryset


@admin.register(DisplayControlLease)
class LeaseAdmin(ReadOnlyAdmin):
    """Who has control of what; the actions end it, close it, and open it again."""

    list_display = [
        "workspace",
        "who",
        "acquired_at",
        "expires_at",
        "remaining",
        "epoch",
        "state",
    ]
    list_select_related = ["workspace", "holder"]
    list_filter = [_StateFilter, _ControllerFilter, _ConnectedFilter]
    search_fields = ["workspace__name", "workspace__slug", "holder__username"]
    actions = ["force_release", "close", "open_again"]
    exclude = ["client_id", "login"]  # never shown: a client_id is its holder's secret

    def get_queryset(self, request: HttpRequest) -> QuerySet[DisplayControlLease]:
        """Read the rows together with the database's clock."""
        return leaseviews.lease_rows()

    @admin.display(description="who")
    def who(self, lease: DisplayControlLease) -> str:
        """Name the holder, where there is one."""
        return presenters.holder_name(lease) if _view(lease).is_held else "–"

    @admin.display(description="remaining")
    def remaining(self, lease: DisplayControlLease) -> str:
        """Tell how long the lease still lasts."""
        view = _view(lease)
        return f"{view.remaining:.0f} s" if view.is_held else "–"

    @admin.display(description="state")
    def state(self, lease: DisplayControlLease) -> str:
        """Tell held, closed, expired, or how it ended."""
        return presenters.state(_view(lease))

    def has_force_permission(self, request: HttpRequest) -> bool:
        """Only those who may change leases may end them; superusers may."""
        return request.user.has_perm("controlplane.change_displaycontrollease")

    @admin.action(description="Force-release", permissions=["force"])
    def force_release(
        self, request: HttpRequest, chosen: QuerySet[DisplayControlLease]
    ) -> HttpResponse | None:
        """Ask for a note, then end the chosen leases."""
        note, page = self._note(
            request,
            chosen,
            action="force_release",
            title="Force-release: why?",
            explanation="These will be ended. The holder reads your note.",
            button="Force-release",
        )
        if page:
            return page
        results = [
            leases.force_release(lease.workspace, **note, epoch=_epoch_shown(request, lease))
            for lease in chosen
        ]
        ended = sum(map(bool, results))
        self.message_user(
            request,
            f"{ended} ended; {len(results) - ended} had no holder, or another by now.",
            messages.SUCCESS if ended else messages.WARNING,
        )
        return None

    @admin.action(description="Force-release and close", permissions=["force"])
    def close(
        self, request: HttpRequest, chosen: QuerySet[DisplayControlLease]
    ) -> HttpResponse | None:
        """Ask for a note, then end the chosen leases, whosever, and let nobody have them."""
        note, page = self._note(
            request,
            chosen,
            action="close",
            title="Force-release and close: why?",
            explanation="Control of these will be ended, and nobody, agents included, can have it "
            "until you open them to control again. The holder, and whoever wants control, reads "
            "your note.",
            button="Force-release and close",
        )
        if page:
            return page
        results = [leases.close(lease.workspace, **note) for lease in chosen]
        had_holder = sum(each.ended is not None for each in results)
        self.message_user(request, f"{len(results)} closed; {had_holder} had a holder.")
        return None

    @admin.action(description="Open to control again", permissions=["force"])
    def open_again(self, request: HttpRequest, chosen: QuerySet[DisplayControlLease]) -> None:
        """Let control of the chosen be had again."""
        by, ip = access.display_name(user_of(request)), ip_of(request)
        opened = [leases.open_again(lease.workspace, by=by, ip=ip) for lease in chosen]
        self.message_user(
            request,
            f"{sum(opened)} opened; {opened.count(False)} had not been closed.",
            messages.SUCCESS if any(opened) else messages.WARNING,
        )

    def _note(
        self, request: HttpRequest, chosen: QuerySet[DisplayControlLease], **page: str
    ) -> tuple[dict[str, Any], HttpResponse | None]:
        """Return who ends it, why and from where; before there is a note, the page that asks."""
        form = NoteForm(request.POST if "apply" in request.POST else None)
        if not form.is_valid():
            return {}, ask(self, request, chosen, form=form, **page)
        by = access.display_name(user_of(request))
        return {"by": by, "note": form.cleaned_data["note"], "ip": ip_of(request)}, None


def _epoch_shown(request: HttpRequest, lease: DisplayControlLease) -> int:
    """Return the epoch that the asking page has shown: whoever came later is not meant."""
    shown = request.POST.get(f"epoch-{lease.pk}", "")
    return int(shown) if shown.isdecimal() else -1  # an epoch that never is


def _view(lease: Any) -> LeaseView:
    return leaseviews.view_of(lease, None)
