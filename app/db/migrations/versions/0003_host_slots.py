"""What limits per host over replicas are counted by: the slot a running attempt holds, starts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_HOLDS_SLOT = "slot_host IS NOT NULL"


def upgrade() -> None:
    # A column without a default changes no row.
    op.add_column("executions", sa.Column("slot_host", sa.Text(), nullable=True))
    op.create_index(
        "executions_slots",
        "executions",
        ["slot_host"],
        unique=False,
        sqlite_where=sa.text(_HOLDS_SLOT),
        postgresql_where=sa.text(_HOLDS_SLOT),
    )
    op.create_table(
        "host_starts",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("next_us", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("host", name=op.f("host_starts_pkey")),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("host_starts")
    op.drop_index("executions_slots", "executions")
    op.drop_column("executions", "slot_host")
