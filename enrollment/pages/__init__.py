"""The HTML pages: search, compare, persons, pictures, and login."""
