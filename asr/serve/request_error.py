"""Why a request is refused, in the form in which OpenAI's API reports it."""

import math

from starlette.responses import JSONResponse

from asr.errors import AsrError

# What callers are told of the service's own faults.
FAILED = "the service failed on this request; its log tells why"


class RequestError(AsrError):
    """A request that is not answered as asked.

    Attributes:
        status: of HTTP.
        param: the field of the form that is at fault, if one is.
        retry_after: seconds after which the caller may come back; None where that is of no use.
    """

    def __init__(self, status: int, message: str, param: str | None = None, retry_after: float | None = None):
        super().__init__(message)
        self.status, self.param, self.retry_after = status, param, retry_after

    def response(self) -> JSONResponse:
        """Return the answer: {"error": {"message", "type", "param", "code"}}."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        content = {"message": str(self), "type": kind, "param": self.param, "code": CODES.get(self.status)}
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": content}, self.status, headers)


CODES = {401: "invalid_api_key", 404: "not_found", 413: "too_large", 429: "rate_limit_exceeded"}
