"""Flow models that are there only where ComfyUI's folders hold their file, in the core's registry; each module is
imported, so that a new file is found by itself."""

from importlib import import_module
from pkgutil import iter_modules

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")
