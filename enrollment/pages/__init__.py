"""The pages: search, compare, persons, pictures, and the login for those who need one."""
