"""Which waiting jobs go next: fair between projects, by priority and age within one."""

from collections import Counter
from collections.abc import Iterable, Mapping

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.tables import Job


async def next_in_line(
    session: AsyncSession,
    waiting: ColumnElement[bool],
    on_cluster: ColumnElement[bool],
    max_live: int,
) -> list[Job]:
    """The jobs to put on the cluster, in this order.

    Args:
        session: Where they are.
        waiting: Tells the jobs that may go.
        on_cluster: Tells the jobs that take a place.
        max_live: Number of places.
    """
    of_each = select(Job.project, func.count()).where(on_cluster).group_by(Job.project)
    live = dict((await session.execute(of_each)).all())
    room = max_live - sum(live.values())
    if room <= 0:
        return []
    by_merit = (Job.priority.desc(), Job.created_at, Job.id)
    place = func.row_number().over(partition_by=Job.project, order_by=by_merit).label("place")
    ranked = select(Job.id, place).where(waiting).subquery()
    # No project can get more than all free places, however long its queue is.
    first_ones = select(Job).join(ranked, Job.id == ranked.c.id).where(ranked.c.place <= room)
    candidates = await session.scalars(first_ones.order_by(ranked.c.place))
    return take_turns(candidates.all(), live, room)


async def num_places_left(
    session: AsyncSession, on_cluster: ColumnElement[bool], max_live: int
) -> int:
    """How many more jobs fit on the cluster.

    Args:
        session: Where the jobs are.
        on_cluster: Tells those that take a place.
        max_live: Number of places.
    """
    taken = await session.scalar(select(func.count()).select_from(Job).where(on_cluster))
    return max_live - (taken or 0)


def take_turns(waiting: Iterable[Job], live: Mapping[str, int], room: int) -> list[Job]:
    """Give each place to the project that has the fewest.

    A priority orders the jobs of one project: whoever may submit may raise it, so that it must not
    hold up others. Of projects with equally many places, the one goes first whose next job is the
    oldest.

    Args:
        waiting: Jobs that may go; those of one project in the order in which they are to go.
        live: Places that each project has; one that has none may be missing.
        room: Places that are free.
    """
    queues: dict[str, list[Job]] = {}
    for job in waiting:
        queues.setdefault(job.project, []).append(job)
    taken = Counter(live)
    chosen: list[Job] = []
    while queues and len(chosen) < room:
        project = min(
            queues, key=lambda name: (taken[name], queues[name][0].created_at, queues[name][0].id)
        )
        chosen.append(queues[project].pop(0))
        taken[project] += 1
        if not queues[project]:
            del queues[project]
    return chosen
