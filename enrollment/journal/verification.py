"""Find lines of the journal that were changed, removed or put in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from django.db.models import Max
from django.utils.translation import gettext

from enrollment.models import Action, JournalChain, JournalEntry, JournalSubject

LINES_AT_A_TIME: Final = 2000


@dataclass(slots=True)
class Verification:
    """How many lines were read, what is wrong in sentences, and the hash of each chain's last line."""

    lines: int = 0
    problems: list[str] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)


def verify(known_head: str = "") -> Verification:
    """Read the journal up to its present end and compute every hash again; others may go on writing.

    Lines that were cut off at the end, with the chain's own note of its end, can be told from
    outside only: `known_head` is a hash that was the last one at some time and was kept elsewhere.
    """
    result = Verification()
    is_known = not known_head
    for name in JournalChain.Name.values:
        while True:
            reading = _Reading(_chain(name))
            reading.verify()
            if _chain(name).anchor_number == reading.chain.anchor_number:  # not cut meanwhile
                break
        result.lines += reading.result.lines
        result.problems += reading.result.problems
        result.heads |= reading.result.heads
        is_known |= reading.had(known_head)
    if not is_known:
        result.problems.append(
            gettext(
                "No line has the given hash: lines were removed at the end or changed since it was noted, or "
                "it is older than what is kept."
            )
        )
    return result


def _chain(name: str) -> JournalChain:
    """Return the chain; without its row, one that has lost its end unless it has no lines."""
    last = JournalEntry.objects.filter(chain=name).aggregate(number=Max("number"))["number"]
    row = JournalChain.objects.filter(pk=name).first()
    return row or JournalChain(name=name, number=last or 0)


class _Reading:
    """The verification of one chain."""

    def __init__(self, chain: JournalChain) -> None:
        self.chain, self.result = chain, Verification()
        self.blank: dict[int, int] = {}  # by person, the first line without their names

    def verify(self) -> None:
        chain = self.chain
        if chain.anchor_number:
            self._verify_anchor()
        number, last = chain.anchor_number, chain.anchor_hash
        entries = JournalEntry.objects.filter(chain=chain.name, number__lte=chain.number)
        ordered = entries.order_by("number").prefetch_related("subjects")
        for entry in ordered.iterator(LINES_AT_A_TIME):
            self._verify_line(entry, number, last)
            number, last = entry.number, entry.hash
        if (number, last) != (chain.number, chain.hash):
            text = gettext("%(chain)s ends with line %(number)d; it should end with line %(last)d.")
            self._report(text, number=number, last=chain.number)
        self._verify_blank()
        self.result.heads[chain.name] = last

    def _verify_line(self, entry: JournalEntry, number: int, last: str) -> None:
        self.result.lines += 1
        if entry.number != number + 1:
            text = gettext("%(chain)s: the lines %(number)d to %(last)d are missing.")
            self._report(text, number=number + 1, last=entry.number - 1)
        elif entry.previous_hash != last:
            text = gettext("%(chain)s: line %(number)d does not follow the one before.")
            self._report(text, number=entry.number)
        subjects = list(entry.subjects.all())
        if entry.hash != entry.compute_hash(subjects):
            self._report(gettext("%(chain)s: line %(number)d was changed."), number=entry.number)
        for subject in subjects:
            if subject.personal_hash and not subject.salt:
                self.blank.setdefault(subject.person_pk, entry.number)
            is_as_written = subject.personal_hash == subject.compute_hash()
            if not (is_as_written if subject.salt else subject.personal is None):
                self._report_personal(entry.number)

    def _verify_blank(self) -> None:
        """Names may be missing only of persons whom a line says erased; asked last, so of now."""
        erased = JournalSubject.objects.filter(entry__action=Action.ERASED)
        for person in self.blank.keys() - set(erased.values_list("person_pk", flat=True)):
            self._report_personal(self.blank[person])

    def _report_personal(self, number: int) -> None:
        text = gettext("%(chain)s: the personal part of line %(number)d was changed.")
        self._report(text, number=number)

    def _report(self, text: str, **numbers: int) -> None:
        self.result.problems.append(text % {"chain": self.chain.name, **numbers})

    def had(self, known: str) -> bool:
        """Return whether a line of the chain has this hash, or the last one that was removed had."""
        lines = JournalEntry.objects.filter(chain=self.chain.name, hash=known)
        return known == self.chain.anchor_hash or lines.exists()

    def _verify_anchor(self) -> None:
        """The line before the first must be the one at which the server itself cut the chain last."""
        chain = self.chain
        cuts = JournalEntry.objects.filter(action=Action.LINES_REMOVED).order_by("-number")
        told = (cut.facts for cut in cuts if cut.facts.get("chain") == chain.name)
        facts: dict[str, Any] = next(told, {})
        if (facts.get("number"), facts.get("hash")) != (chain.anchor_number, chain.anchor_hash):
            text = gettext(
                "%(chain)s: lines before %(number)d were removed, and not by the server."
            )
            self._report(text, number=chain.anchor_number + 1)
