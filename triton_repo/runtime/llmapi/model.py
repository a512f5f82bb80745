"""What Triton loads: copied into the version folder, the rest of this package into `trtbuild_code`
there."""

import sys
from pathlib import Path

# the code that the repository was written with, whatever trtbuild may be installed besides; not
# the version folder itself, where a model's own code may lie
sys.path.insert(0, str(Path(__file__).with_name("trtbuild_code")))

from triton_repo.runtime.llmapi.backend import TritonPythonModel

__all__ = ["TritonPythonModel"]
