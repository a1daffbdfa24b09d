"""What a failed step becomes: tried again, or a message for a person."""

import errno

import dagster as dg
import pytest

from agetf_pipeline.core.errors import DataError, StageError, UnavailableError
from assets.retries import (
    COMPUTING_RETRIES,
    NETWORK_RETRIES,
    failing_readably,
    passes_by_itself,
    retry_policy,
)


def run(errors: list[Exception], policy: dg.RetryPolicy | None):
    """Materialise an asset that raises these, one after the other; return result and attempts."""
    attempts = []

    @dg.asset
    def fragile(context: dg.AssetExecutionContext) -> None:
        attempts.append(1)
        with failing_readably(policy, context.retry_number):
            if len(attempts) <= len(errors):
                raise errors[len(attempts) - 1]

    return dg.materialize([fragile], raise_on_error=False), len(attempts)


QUICK = dg.RetryPolicy(max_retries=3, delay=0)


def test_what_passes_by_itself_is_tried_again():
    result, attempts = run([UnavailableError("away"), ConnectionError("reset")], QUICK)
    assert result.success
    assert attempts == 3


@pytest.mark.parametrize("error", [StageError("Do this."), DataError("Do this."), MemoryError()])
def test_what_a_person_has_to_act_on_is_not(error):
    result, attempts = run([error], QUICK)
    assert not result.success
    assert attempts == 1


def test_the_message_stands_alone():
    result, _ = run([StageError("Expected a. Found b. Do c.")], QUICK)
    failure = result.get_step_failure_events()[0].step_failure_data
    assert failure.user_failure_data.description == "Expected a. Found b. Do c."
    assert failure.error.message.strip().endswith("Failure: Expected a. Found b. Do c.")
    assert failure.error.cause is None


def test_an_error_that_nobody_foresaw_keeps_its_traceback():
    result, _ = run([ZeroDivisionError("by 0")], QUICK)
    failure = result.get_step_failure_events()[0].step_failure_data
    assert failure.user_failure_data.description == "ZeroDivisionError: by 0"
    assert any("test_retries.py" in line for line in failure.error.cause.stack)


def test_a_full_disk_does_not_pass_by_itself_but_a_lost_file_system_may():
    assert not passes_by_itself(OSError(errno.ENOSPC, "no space left on device"))
    assert passes_by_itself(OSError(errno.ESTALE, "stale file handle"))


def test_what_does_not_pass_after_all_fails_with_its_message():
    result, attempts = run([UnavailableError("It is away.")] * 4, QUICK)
    assert attempts == 4
    failure = result.get_step_failure_events()[0].step_failure_data
    assert failure.user_failure_data.description == "It is away."


def test_no_asset_has_a_policy_of_its_own():
    """Dagster would try a step again that somebody terminated."""
    from definitions import defs

    graph = defs.resolve_asset_graph()
    policies = {
        graph.assets_def_for_key(key).node_def.retry_policy for key in graph.get_all_asset_keys()
    }
    assert policies == {None}


def test_only_stages_that_reach_over_a_network_or_compute_are_tried_again():
    assert retry_policy("ingest") is None
    # All that compute, and whose processes are watched for signs of life.
    for stage in (
        "train_experts", "train_evaluators", "train_enhancers", "predict", "enhance", "caption",
        "recheck", "train", "distill",
    ):  # fmt: skip
        assert retry_policy(stage) == COMPUTING_RETRIES
    assert retry_policy("register") == NETWORK_RETRIES


def test_a_registry_that_does_not_answer_is_unavailable_and_one_that_refuses_is_not(tmp_path):
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

    from agetf_pipeline.registry.tracking import connected

    def kind(uri: str, error: MlflowException) -> type:
        with pytest.raises(StageError) as caught, connected(uri):
            raise error
        return caught.type

    local, server = f"sqlite:///{tmp_path / 'mlflow.db'}", "http://127.0.0.1:9"
    assert kind(server, MlflowException("Max retries exceeded")) is UnavailableError
    assert kind(local, MlflowException("locked", TEMPORARILY_UNAVAILABLE)) is UnavailableError
    assert kind(server, MlflowException("no", INVALID_PARAMETER_VALUE)) is StageError
    assert kind(local, MlflowException("broken")) is StageError
