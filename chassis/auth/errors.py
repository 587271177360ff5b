"""What a caller is told who may not do what it asks for."""

from http import HTTPStatus

from aiohttp import hdrs

from chassis.errors import Problem


class ServiceTokenInvalid(Problem):
    """The internal operations take the service token and nothing else."""

    status = HTTPStatus.UNAUTHORIZED
    code = "auth.service_token_invalid"
    title = "The service token is missing or wrong"

    @classmethod
    def of(cls, detail: str) -> "ServiceTokenInvalid":
        """The problem with the challenge that every 401 has."""
        return cls(detail, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
