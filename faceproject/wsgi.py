"""The WSGI application; one process with threads when the vectors live in embedded Milvus."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faceproject.settings")

application = get_wsgi_application()
