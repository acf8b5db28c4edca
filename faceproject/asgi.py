"""The ASGI application; `faceproject.wsgi` is what `manage.py serve` runs."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faceproject.settings")

application = get_asgi_application()
