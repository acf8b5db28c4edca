"""The desk for data subjects: export what is kept of a person; erase and certify it."""

from enrollment.desk.person_export import export_name, export_person
from enrollment.desk.receipts import (
    Ground,
    erase_by_id,
    erase_item_with_receipts,
    erase_with_receipt,
    read_receipt,
    receipt_again,
    receipt_json,
    receipt_page,
    save_receipt,
    says_the_same,
    verify_receipt,
)

__all__ = [
    "Ground",
    "erase_by_id",
    "erase_item_with_receipts",
    "erase_with_receipt",
    "export_name",
    "export_person",
    "read_receipt",
    "receipt_again",
    "receipt_json",
    "receipt_page",
    "save_receipt",
    "says_the_same",
    "verify_receipt",
]
