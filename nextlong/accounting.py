"""Counts in which nothing vanishes: for every unit, read = kept + dropped by reason; they add up over partitions."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass
class Count:
    """One unit of an account (documents, chunks, tokens): what was read, what was kept, and why the rest was not."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def balances(self) -> bool:
        """Whether read = kept + dropped."""
        return self.read == self.kept + self.dropped.total()


class Account:
    """Counts by unit, and notes: counters of things seen that were not dropped (texts cut, bytes replaced)."""

    def __init__(self) -> None:
        self.counts: dict[str, Count] = {}
        self.notes: Counter[str] = Counter()

    def add(self, unit: str, *, read: int, kept: int, dropped: Mapping[str, int] | None = None) -> None:
        """Add to the counts of a unit; reasons with a count of 0 leave no trace."""
        count = self.counts.setdefault(unit, Count())
        count.read += read
        count.kept += kept
        count.dropped.update({reason: number for reason, number in (dropped or {}).items() if number})

    def note(self, name: str, number: int) -> None:
        """Count something worth telling that was not dropped; a count of 0 leaves no trace."""
        if number:
            self.notes[name] += number

    def check(self, where: str) -> None:
        """Raise RuntimeError when a unit does not balance: rows were lost without a reason, which is a defect."""
        for unit, count in self.counts.items():
            if not count.balances:
                raise RuntimeError(
                    f"{where}: {unit} do not balance: read {count.read}, kept {count.kept}, "
                    f"dropped {dict(count.dropped)}. This is a defect; please report it."
                )

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON, keys in a fixed order."""
        units = {
            unit: {"read": count.read, "kept": count.kept, "dropped": dict(sorted(count.dropped.items()))}
            for unit, count in sorted(self.counts.items())
        }
        return units | ({"notes": dict(sorted(self.notes.items()))} if self.notes else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Account":
        """The account that `to_dict` wrote."""
        account = cls()
        for unit, count in data.items():
            if unit == "notes":
                account.notes.update(count)
            else:
                account.add(unit, **count)
        return account

    @classmethod
    def total(cls, accounts: Iterable["Account"]) -> "Account":
        """The sum of accounts, whatever their order."""
        total = cls()
        for account in accounts:
            total.notes.update(account.notes)
            for unit, count in account.counts.items():
                total.add(unit, read=count.read, kept=count.kept, dropped=count.dropped)
        return total
