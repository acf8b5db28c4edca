"""The WSGI application. With embedded Milvus it must run in one process with threads."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faceproject.settings")

application = get_wsgi_application()
