"""API keys, the projects that they open, and the log of what was changed with them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("hash", sa.String(200), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("revoked_at", MOMENT),
        sa.Column("last_used_at", MOMENT),
    )
    op.create_index("ix_api_keys_created_at_id", "api_keys", ["created_at", "id"])
    op.create_table(
        "audit",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("key_id", sa.String(20)),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("target", sa.String(200), nullable=False),
        sa.Column("request_id", sa.String(64)),
        sa.Column("outcome", sa.String(32), nullable=False),
    )
    op.create_index("ix_audit_target_id", "audit", ["target", "id"])
    op.create_index("ix_audit_key_id_id", "audit", ["key_id", "id"])
    op.add_column(
        "files", sa.Column("project", sa.String(64), nullable=False, server_default="default")
    )
    op.create_index("ix_files_project_created_at_id", "files", ["project", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_files_project_created_at_id", "files")
    op.drop_column("files", "project")
    op.drop_table("audit")
    op.drop_table("api_keys")
