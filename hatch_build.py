"""What packing does besides copying files: the web app is built, so that an installed mohole needs no Node."""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WebApp(BuildHookInterface[Any]):
    """Runs web/build.py. An editable install is left to `make web`; a package without the app still serves its API."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        script = Path(self.root) / "web" / "build.py"
        if version == "editable" or not script.is_file():
            return
        spec = importlib.util.spec_from_file_location("mohole_web_build", script)
        assert spec is not None
        assert spec.loader is not None
        web = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(web)
        try:
            web.build()
        except web.MissingError as problem:
            if not (web.STATIC / "index.html").is_file():
                self.app.display_warning(f"This package has no web app, only its API: {problem}.")
