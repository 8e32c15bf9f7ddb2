"""Makes `import torchaudio` work beside a CPU-only torch.

torchaudio's registry build is made for CUDA: beside a CPU-only torch its import raises OSError (libcudart or
libc10_cuda is missing), and transformers then fails too, since it imports torchaudio when it finds it. The compiled
extension is only needed for things that avdetect does not use, so a stand-in that says "not available" takes its
place. Import this module before torchaudio or transformers.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, NoReturn

from avdetect.later import deferred

UNUSED = ("torchaudio.datasets", "torchaudio.models", "torchaudio.pipelines")
"""What `import torchaudio` brings with it and avdetect has no need of: most of the time that it takes."""


def _unavailable(*args: Any, **kwargs: Any) -> NoReturn:
    raise RuntimeError(
        "this torchaudio function needs its compiled extension, which does not load beside this torch"
    )


def _stand_in() -> ModuleType:
    module = ModuleType("torchaudio._extension")
    for name in ("_IS_TORCHAUDIO_EXT_AVAILABLE", "_IS_RIR_AVAILABLE", "_IS_ALIGN_AVAILABLE"):
        setattr(module, name, False)
    for name in ("fail_if_no_align", "fail_if_no_rir", "fail_if_no_sox", "_check_cuda_version"):
        setattr(module, name, lambda function=None, *_: _unavailable)
    module.__dict__["_load_lib"] = _unavailable
    module.__path__ = []
    return module


def _forget_torchaudio() -> None:
    loaded = [name for name in sys.modules if name == "torchaudio" or name.startswith("torchaudio.")]
    for name in [name for name in loaded if name not in UNUSED]:
        del sys.modules[name]


def ensure_torchaudio() -> None:
    """Import torchaudio, without its compiled extension where that cannot be loaded. Cheap when already done."""
    with deferred(*UNUSED):
        try:
            import torchaudio
        except OSError:
            _forget_torchaudio()
            sys.modules["torchaudio._extension"] = _stand_in()
            import torchaudio  # noqa: F401


ensure_torchaudio()
