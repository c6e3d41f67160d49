"""``python -m edgekit`` is the ``edgekit`` command."""

from .cli import main
from .runtime.camera.signals import leave

leave(main())
