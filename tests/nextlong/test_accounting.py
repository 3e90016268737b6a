"""Accounts balance and add up."""

import pytest

from nextlong.accounting import Account


def _account(read: int, kept: int, **dropped: int) -> Account:
    account = Account()
    account.add("documents", read=read, kept=kept, dropped=dropped)
    return account


def test_accounts_add_up_in_any_order() -> None:
    parts = [_account(3, 2, blank=1), _account(5, 3, blank=1, copy=1), _account(0, 0)]
    parts[0].note("cut", 4)
    total = Account.total(parts)
    assert total.to_dict() == Account.total(reversed(parts)).to_dict()
    assert total.to_dict() == {
        "documents": {"read": 8, "kept": 5, "dropped": {"blank": 2, "copy": 1}},
        "notes": {"cut": 4},
    }


def test_an_account_survives_its_dict() -> None:
    account = _account(3, 2, blank=1)
    account.note("cut", 1)
    assert Account.from_dict(account.to_dict()).to_dict() == account.to_dict()


def test_rows_without_a_reason_are_found() -> None:
    _account(3, 2, blank=1).check("read")
    with pytest.raises(RuntimeError, match="read: documents do not balance: read 3, kept 2"):
        _account(3, 2).check("read")
