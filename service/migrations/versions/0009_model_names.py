"""Whose the registered models are; those of earlier jobs belong to the project of the first."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
JOBS = sa.table(
    "jobs",
    sa.column("id", sa.String),
    sa.column("project", sa.String),
    sa.column("kind", sa.String),
    sa.column("name", sa.String),
    sa.column("spec", sa.JSON),
    sa.column("created_at", MOMENT),
)


def upgrade() -> None:
    names = op.create_table(
        "model_names",
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index("ix_model_names_project_name", "model_names", ["project", "name"])
    registering = (
        sa.select(JOBS)
        .where(JOBS.c.kind.in_(["finetune", "search"]))
        .order_by(JOBS.c.created_at, JOBS.c.id)
    )
    claims: dict[str, dict[str, Any]] = {}
    for job in op.get_bind().execute(registering):
        registry = job.spec.get("registry") or {}
        name = registry.get("model_name") or job.name
        claims.setdefault(name, {"project": job.project, "created_at": job.created_at})
    if claims:
        op.bulk_insert(names, [{"name": name, **claim} for name, claim in claims.items()])


def downgrade() -> None:
    op.drop_table("model_names")
