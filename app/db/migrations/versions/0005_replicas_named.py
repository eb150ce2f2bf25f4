"""Which process made an execution's last attempt, for whoever asks after its end."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A column without a default changes no row.
    op.add_column("executions", sa.Column("sent_by", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("executions", "sent_by")
