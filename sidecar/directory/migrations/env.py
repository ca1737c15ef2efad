"""What Alembic runs to bring a database up to date, on the connection that ``directory.migrate`` hands over."""

from alembic import context

from sidecar.directory.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="sidecar_version",
    # SQLite can roll DDL back, Alembic only believes it when told.
    transactional_ddl=context.config.attributes["transactional"],
)
with context.begin_transaction():
    context.run_migrations()
