"""Where a data set stands, the jobs that name it, and bytes that may be without a record."""

import re
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

FILE_ID = re.compile(r"file-[0-9a-f]{16}")
BATCH = 1000


def upgrade() -> None:
    with op.batch_alter_table("files") as files:
        files.add_column(sa.Column("status", sa.String(16), nullable=False, server_default="ready"))
        files.add_column(sa.Column("fault", sa.JSON))
        files.alter_column("num_rows", existing_type=sa.BigInteger, nullable=True)
    op.create_index("ix_files_status_created_at_id", "files", ["status", "created_at", "id"])
    op.create_index("ix_files_sha256", "files", ["sha256"])
    op.create_table(
        "file_leftovers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "job_files",
        sa.Column(
            "job_id",
            sa.String(20),
            sa.ForeignKey("jobs.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("file_id", sa.String(21), primary_key=True),
    )
    op.create_index("ix_job_files_file_id_job_id", "job_files", ["file_id", "job_id"])
    note_files_of_jobs(op.get_bind())


def note_files_of_jobs(connection: sa.Connection) -> None:
    jobs = sa.table("jobs", sa.column("id", sa.String), sa.column("spec", sa.JSON))
    job_files = sa.table("job_files", sa.column("job_id"), sa.column("file_id"))
    last = ""
    while rows := connection.execute(
        sa.select(jobs).where(jobs.c.id > last).order_by(jobs.c.id).limit(BATCH)
    ).all():
        last = rows[-1].id
        named = [
            {"job_id": row.id, "file_id": file_id}
            for row in rows
            for file_id in sorted(set(file_ids_in(row.spec)))
        ]
        if named:
            connection.execute(job_files.insert(), named)


def file_ids_in(value: object) -> Iterator[str]:
    """Texts of a spec that read like the id of a file, wherever a spec may name one."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from file_ids_in(item)
    elif isinstance(value, str) and FILE_ID.fullmatch(value):
        yield value


def downgrade() -> None:
    op.drop_table("job_files")
    op.drop_table("file_leftovers")
    # An older service takes every file that it knows for a valid one.
    op.execute("DELETE FROM files WHERE status IN ('validating', 'invalid')")
    op.drop_index("ix_files_sha256", "files")
    op.drop_index("ix_files_status_created_at_id", "files")
    with op.batch_alter_table("files") as files:
        files.drop_column("fault")
        files.drop_column("status")
        files.alter_column("num_rows", existing_type=sa.BigInteger, nullable=False)
