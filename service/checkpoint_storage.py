"""Where the checkpoints of trainings lie: what of them is still there, as far as one can see it."""

import asyncio
import logging
from collections.abc import Mapping

from jobs.run_folder import stored_sizes

logger = logging.getLogger(__name__)

_TIMEOUT_S = 10.0


class CheckpointStorage:
    """The folder or object store of all checkpoints.

    Args:
        path: Its path or address; this process may lack what it takes to look there.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    async def sizes(self, run_name: str) -> Mapping[int, int] | None:
        """Bytes of each checkpoint that a training has there, by its step.

        Args:
            run_name: The training's folder.

        Returns:
            None where nobody can tell: the storage is not there, does not answer or refuses.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await asyncio.to_thread(stored_sizes, self._path, run_name)
        except (OSError, ValueError, TimeoutError) as error:  # pyarrow's own are of these kinds
            logger.warning("the storage of checkpoints cannot be read: %s", error)
            return None
