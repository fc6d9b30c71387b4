"""Every path of a node's Ray asks for the token: Python imports this wherever its folder is in PYTHONPATH.

Ray 2.60 tells anybody whether it is alive and whether it asks for a token, and serves the page to enter it; no
setting changes that (`public_exact_paths` in its http_server_head.py). Here these ask like all others. A browser,
which does not see that page any more, asks for a password instead: the token is one.
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from types import ModuleType
from typing import Any

ASKS = "ray._private.authentication.http_token_authentication"
PROMPT = 'Basic realm="Ray: the token is the password"'

Handler = Callable[[Any], Awaitable[Any]]


def asking(ray: ModuleType, public: Callable[..., Any]) -> Callable[..., Any]:
    """Ray's maker of its aiohttp middleware (`public`) without exceptions, and with the token as a password."""

    def get_token_auth_middleware(aiohttp: Any, *_paths: Any, **_named_paths: Any) -> Any:
        asked = public(aiohttp)

        def token_of(header: str) -> str:
            try:
                return f"Bearer {aiohttp.BasicAuth.decode(header).password}"
            except ValueError:
                return ""

        async def ask(request: Any, handler: Handler) -> Any:
            header = request.headers.get("Authorization", "")
            if not ray.auth_utils.is_token_auth_enabled():
                return await handler(request)
            if not header.startswith("Basic "):
                answer = await asked(request, handler)
            elif ray.auth_utils.validate_request_token(token_of(header)):
                return await handler(request)
            else:
                answer = aiohttp.web.Response(status=401, text="Unauthorized: the password is not the token")
            if answer.status == 401:
                answer.headers["WWW-Authenticate"] = PROMPT
            return answer

        return aiohttp.web.middleware(ask)

    return get_token_auth_middleware


class Asking(SourceFileLoader):
    """Loads the module of Ray that asks for the token, and takes its exceptions away."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module)["get_token_auth_middleware"] = asking(module, module.get_token_auth_middleware)


class Finder(MetaPathFinder):
    """Finds that one module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname == ASKS else None
        if found is None or found.origin is None:
            return None
        return spec_from_file_location(fullname, found.origin, loader=Asking(fullname, found.origin))


sys.meta_path.insert(0, Finder())
