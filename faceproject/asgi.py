"""The ASGI application. `manage.py serve` uses `faceproject.wsgi` instead."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faceproject.settings")

application = get_asgi_application()
