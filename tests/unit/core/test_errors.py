"""The one body of every error."""

import json

import msgspec

from tokenyard.core.errors import ErrorBody, InvalidRequest, NotFound, error_body


def test_the_body_is_openais() -> None:
    assert json.loads(error_body(InvalidRequest("No.", param="model"))) == {
        "error": {"message": "No.", "type": "invalid_request_error", "param": "model", "code": None}
    }
    assert msgspec.json.decode(error_body(NotFound("None.")), type=ErrorBody).error.code == "not_found"


def test_half_a_surrogate_pair_of_the_clients_does_not_break_it() -> None:
    body = json.loads(error_body(InvalidRequest("a \ud800 b", param="\udfff")))
    assert (body["error"]["message"], body["error"]["param"]) == ("a ? b", "?")
