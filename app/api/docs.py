"""``/docs`` without a CDN: Swagger UI's files are served from an installed package."""

from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

_FILES = Path(fastapi_offline.__file__).parent / "static"
_FILES_PATH = "/docs/files"


def install_docs(app: FastAPI) -> None:
    """Serve the interactive documentation at ``/docs``."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} API",
            swagger_js_url=f"{root}{_FILES_PATH}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{_FILES_PATH}/swagger-ui.css",
            swagger_favicon_url=f"{root}{_FILES_PATH}/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},  # else a foreign site sees the document
        )

    app.mount(_FILES_PATH, StaticFiles(directory=_FILES), name="docs-files")
