"""The lines of the journal in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.template.defaultfilters import floatformat
from django.utils.dateparse import parse_date
from django.utils.formats import date_format
from django.utils.translation import gettext, ngettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from enrollment.models import Action, AuthorKind, JournalEntry, JournalSubject, Person

_VERDICTS: Final = {
    "confirmed": _("%(who)s confirmed a match with %(person)s"),
    "rejected": _("%(who)s said of a match that it is not %(person)s"),
    "withdrawn": _("%(who)s took back what was said of a match with %(person)s"),
}
_SENTENCES: Final = {
    Action.CREATED: _("%(who)s enrolled %(person)s"),
    Action.CHANGED: _("%(who)s changed %(person)s: %(changes)s"),
    Action.MERGED: _("%(who)s merged %(others)s into %(person)s, with %(pictures)s"),
    Action.DELETED: _("%(who)s deleted %(person)s"),
    Action.ERASED: _("%(who)s erased %(person)s"),
    Action.RESTORED: _("%(who)s restored %(person)s"),
    Action.UNDONE: _("%(who)s undid a change of %(person)s"),
    Action.PICTURES_ADDED: _("%(who)s added %(pictures)s of %(person)s"),
    Action.PICTURES_MOVED: _("%(who)s moved %(pictures)s from %(others)s to %(person)s"),
    Action.PICTURES_DELETED: _("%(who)s deleted %(pictures)s of %(person)s"),
    Action.FACE_CHOSEN: _("%(who)s chose another face in %(pictures)s of %(person)s"),
    Action.DOUBTS_DISMISSED: _("%(who)s dismissed the doubts about %(pictures)s of %(person)s"),
    Action.SETTLED: _("%(who)s named faces of the inbox: %(person)s, with %(pictures)s"),
    Action.DISCARDED: _("%(who)s discarded faces of the inbox: %(facts)s"),
    Action.FEEDBACK: _("%(who)s said of a match with %(person)s: %(facts)s"),
    Action.KEPT_APART: _("%(who)s said that these are two people: %(person)s"),
    Action.VIEWED: _("%(who)s looked at %(person)s"),
    Action.SEARCHED: _("%(who)s searched a face and was shown %(others)s"),
    Action.VERIFIED: _("%(who)s compared a face with %(others)s"),
    Action.IMPORTED: _("%(who)s imported: %(facts)s"),
    Action.EXPORTED: _("%(who)s exported: %(facts)s %(person)s"),
    Action.BACKED_UP: _("%(who)s made a backup"),
    Action.BACKUP_RESTORED: _("%(who)s restored a backup"),
    Action.CALIBRATED: _("%(who)s stored thresholds that were measured on the gallery"),
    Action.LOGGED_IN: _("%(who)s logged in"),
    Action.LOGGED_OUT: _("%(who)s logged out"),
}
_OTHERS_NAMED: Final = 5
_UNTOLD: Final = ("shown", "now", "pictures")  # long, and in exports

_FIELDS: Final = {
    "person_id": _("id"),
    "name": _("name"),
    "notes": _("notes"),
    "legal_basis": _("legal basis"),
    "keep_until": _("keep until"),
}

_FACTS: Final = {  # others, of rare lines, stand as the journal's data name them
    "account": _("account"),
    "answer": _("answer"),
    "changed": pgettext_lazy("facts of the journal", "changed"),
    "count": pgettext_lazy("facts of the journal", "count"),
    "deleted": pgettext_lazy("facts of the journal", "deleted"),
    "enrolled": pgettext_lazy("facts of the journal", "enrolled"),
    "face": _("face"),
    "format": pgettext_lazy("facts of the journal", "format"),
    "group": _("group"),
    "ignored": pgettext_lazy("facts of the journal", "ignored"),
    "made": pgettext_lazy("facts of the journal", "made"),
    "model": _("model"),
    "persons": _("people"),
    "refused": pgettext_lazy("facts of the journal", "refused"),
    "rights": pgettext_lazy("facts of the journal", "rights"),
    "rows": pgettext_lazy("facts of the journal", "rows"),
    "scope": _("scope"),
    "similarity": _("similarity"),
    "skipped": pgettext_lazy("facts of the journal", "skipped"),
    "token": _("token"),
    "verdict": _("verdict"),
    "what": _("what"),
}
_RIGHTS: Final = {
    "add": pgettext_lazy("rights", "given"),
    "remove": pgettext_lazy("rights", "withdrawn"),
    "clear": pgettext_lazy("rights", "all withdrawn"),
}


def in_words(line: JournalEntry, names: Mapping[int, dict[str, Any]] = {}) -> str:  # noqa: B006
    """Return the line as a sentence in the active language, without time and address.

    `names` are those of `names_of`; they stand where the line has none of its own.
    """
    subjects = subjects_of(line)
    action: Any = Action(line.action) if line.action in Action.values else None
    sentence = _SENTENCES.get(action, _("%(who)s: %(what)s. %(facts)s"))
    if action == Action.FEEDBACK:
        sentence = _VERDICTS.get(line.facts.get("verdict", ""), sentence)
    elif action == Action.SEARCHED and line.facts.get("again"):
        sentence = _("%(who)s looked at the answer of a search and was shown %(others)s")
    acted_on = [subject for subject in subjects if not subject.role]
    return (
        str(sentence)
        % {
            "who": author_in_words(line),
            "what": line.get_action_display(),
            "person": _persons(acted_on, names, line.facts),
            "others": _persons([subject for subject in subjects if subject.role], names),
            "pictures": _pictures(line.facts),
            "changes": _changes(line, acted_on),
            "facts": facts_in_words(line.facts),
        }
    ).strip()


def subjects_of(line: JournalEntry) -> list[JournalSubject]:
    """Return the persons of the line; of a line of `history_of` the first ones."""
    first: list[JournalSubject] | None = getattr(line, "first_subjects", None)
    return list(line.subjects.all()) if first is None else first


def author_in_words(line: JournalEntry) -> str:
    """Return who it was, with the token or command."""
    match line.kind:
        case AuthorKind.SERVER:
            return gettext("The server")
        case AuthorKind.OPEN if not line.who:
            return gettext("Somebody without an account")
    return f"{line.who} ({line.via})" if line.via else line.who


def name_of(subject: JournalSubject, names: Mapping[int, dict[str, Any]] = {}) -> str:  # noqa: B006
    """Return name and id of the person as they were, or the bare number of one who was erased."""
    known = subject.personal or names.get(subject.person_pk)
    if not known:
        return f"#{subject.person_pk}"
    return str(Person(person_id=known["person_id"], name=known["name"]))


def _persons(
    subjects: list[JournalSubject],
    names: Mapping[int, dict[str, Any]],
    facts: Mapping[str, Any] = {},  # noqa: B006
) -> str:
    named = [name_of(subject, names) for subject in subjects[:_OTHERS_NAMED]]
    # Of an act on many persons, which tells their number, not all are loaded.
    left = max(len(subjects), facts.get("persons", 0)) - len(named)
    if left:
        named.append(ngettext("%(count)d more", "%(count)d more", left) % {"count": left})
    return ", ".join(named)


def _pictures(facts: dict[str, Any]) -> str:
    ids = facts.get("pictures") or [facts[name] for name in ("picture",) if name in facts]
    if isinstance(ids, int):  # of a backup: their number
        ids, facts = [], {"count": ids}
    count = facts.get("count", len(ids))
    if 0 < count == len(ids) <= _OTHERS_NAMED:
        text = ngettext("picture %(ids)s", "pictures %(ids)s", count)
        return text % {"ids": ", ".join(map(str, ids))}
    return ngettext("%(count)d picture", "%(count)d pictures", count) % {"count": count}


def _changes(line: JournalEntry, subjects: list[JournalSubject]) -> str:
    for fact, name in (
        ("cover", gettext("cover picture")),
        ("consent", gettext("consent")),
        ("purposes", gettext("purposes")),
    ):
        if fact in line.facts:
            return name
    personal: dict[str, Any] = next((each.personal for each in subjects if each.personal), {})
    before, after = personal.get("before", {}), personal.get("after", {})
    if "persons" in line.facts:  # who had something else before each
        text = gettext("%(field)s → “%(after)s”")
        told = [(_FIELDS.get(name, name), _short(name, value)) for name, value in after.items()]
        return "; ".join(text % {"field": field, "after": value} for field, value in told) or "…"
    texts = [
        gettext("%(field)s “%(before)s” → “%(after)s”")
        % {
            "field": _FIELDS.get(name, name),
            "before": _short(name, before.get(name)),
            "after": _short(name, value),
        }
        for name, value in after.items()
    ]
    return "; ".join(texts) or "…"


def _short(name: str, value: Any) -> str:
    text = "" if value is None else str(value)
    if name == "keep_until" and (day := parse_date(text)):
        return date_format(day)
    return text if len(text) <= 80 else f"{text[:79]}…"


def facts_in_words(facts: dict[str, Any]) -> str:
    """Return the facts as `name value` pairs, for lists that show all kinds of lines."""
    return ", ".join(
        f"{_FACTS.get(name, name)} {_RIGHTS.get(value, value) if name == 'rights' else _value(value)}"
        for name, value in facts.items()
        if name not in _UNTOLD and value is not False
    )


def _value(value: Any) -> str:
    match value:
        case True:
            return gettext("yes")
        case float():
            return str(floatformat(value, 4))
        case dict():
            return f"({facts_in_words(value)})"
        case list():
            return " ".join(map(_value, value))
    return str(value)
