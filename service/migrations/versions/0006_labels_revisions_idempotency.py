"""Projects, labels and revisions of jobs, and the keys of the requests that made them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_jobs_project_created_at_id": ["project", "created_at", "id"],
    "ix_jobs_kind_created_at_id": ["kind", "created_at", "id"],
    "ix_jobs_name_created_at_id": ["name", "created_at", "id"],
}
UNIQUE_INDEX = "ix_jobs_project_idempotency_key"


def upgrade() -> None:
    for column in (
        sa.Column("project", sa.String(64), nullable=False, server_default="default"),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("rerun_of", sa.String(20)),
        sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("request_digest", sa.String(64)),
    ):
        op.add_column("jobs", column)
    for name, columns in INDEXES.items():
        op.create_index(name, "jobs", columns)
    op.create_index(UNIQUE_INDEX, "jobs", ["project", "idempotency_key"], unique=True)
    op.create_table(
        "job_tags",
        sa.Column("job_id", sa.String(20), nullable=False),
        sa.Column("tag", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "tag"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
    )
    op.create_index("ix_job_tags_tag_job_id", "job_tags", ["tag", "job_id"])
    op.create_table(
        "job_metadata",
        sa.Column("job_id", sa.String(20), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "key"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
    )
    op.create_index("ix_job_metadata_key_value_job_id", "job_metadata", ["key", "value", "job_id"])


def downgrade() -> None:
    op.drop_table("job_metadata")
    op.drop_table("job_tags")
    for name in (UNIQUE_INDEX, *INDEXES):
        op.drop_index(name, "jobs")
    for column in (
        "request_digest",
        "idempotency_key",
        "revision",
        "rerun_of",
        "priority",
        "project",
    ):
        op.drop_column("jobs", column)
