"""Runs Alembic's migrations on the connection that `service.database` hands over.

A new revision is written by hand into versions/; the tests say whether it agrees with the tables.
"""

from alembic import context

from service.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    # SQLite changes a table by copying it.
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
