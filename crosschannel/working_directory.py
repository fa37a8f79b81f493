"""Keep `python -m crosschannel` from importing what lies in the working directory.

`python -m` puts the working directory first. Its files may be those of somebody else, such as a run's: a `torch.py`
there must not be imported. What is installed or in PYTHONPATH is found, as by the command `crosschannel`, and a
checkout in the working directory stays. This module is imported first; it needs only what Python itself has loaded.
"""

import os
import sys

_command = sys.orig_argv[sys.orig_argv.index("-m") + 1 :] if "-m" in sys.orig_argv else []
if _command[:1] == ["crosschannel"] and sys.path:
    _here, _first = os.path.realpath(os.curdir), os.path.realpath(sys.path[0])
    if _here == _first != os.path.dirname(os.path.dirname(os.path.realpath(__file__))):
        del sys.path[0]
