"""Real servers for tests: Redis, PostgreSQL, MariaDB, an OpenID provider and Chromium, started on free ports."""
