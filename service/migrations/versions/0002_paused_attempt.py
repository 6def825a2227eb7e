"""The attempt that a job's last pause gave up."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("paused_attempt", sa.Integer, nullable=False, server_default="0")
    )


def downgrade() -> None:
    # An older service knows no pause: it finds no driver of these jobs and tries them again.
    op.execute("UPDATE jobs SET status = 'running' WHERE status = 'pausing'")
    op.execute("UPDATE jobs SET status = 'queued' WHERE status = 'paused'")
    op.drop_column("jobs", "paused_attempt")
