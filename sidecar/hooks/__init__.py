"""Act on accounts inside the application, by REST calls and SQL statements written in the configuration."""
