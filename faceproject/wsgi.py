"""The WSGI application. With embedded Milvus it must run in one process with threads."""

import os

from django.core.wsgi import get_wsgi_application

from recognition.api.text import Request

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faceproject.settings")

application = get_wsgi_application()
application.request_class = Request
