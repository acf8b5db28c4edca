"""Receipts of erasures, shown once to be saved."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from enrollment.desk import receipt_json, receipt_page


def receipts_response(request: HttpRequest, receipts: Sequence[dict[str, Any]]) -> HttpResponse:
    """Show signed receipts with links to save them."""
    shown = [
        {
            "receipt": signed["receipt"],
            "page": _uri("text/html", receipt_page(signed)),
            "json": _uri("application/json", receipt_json(signed)),
        }
        for signed in receipts
    ]
    response = render(request, "enrollment/people/desk/receipt.html", {"receipts": shown})
    response["Cache-Control"] = "no-store, private"  # they hold the ids
    return response


def _uri(media: str, content: str) -> str:
    """Return the file as a link: the receipt holds the id, so the server does not keep it."""
    return f"data:{media};charset=utf-8;base64,{b64encode(content.encode()).decode('ascii')}"
