"""The runs below another in MLflow."""

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

_PAGE = 500


def find_children(client: MlflowClient, parent: Run, further: str = "") -> list[Run]:
    """Every run below a run, oldest first.

    Args:
        client: Connected to the tracking server that holds them.
        parent: The run above.
        further: What must hold of them besides, as MLflow's search has it, such as
            "tags.colour = 'blue'".
    """
    conditions = [f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'"]
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [parent.info.experiment_id],
            " AND ".join(conditions + [further] * bool(further)),
            max_results=_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs
