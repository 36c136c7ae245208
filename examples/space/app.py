"""The server as a hosted demonstration starts it: every address, the port that the host names."""

import os
import subprocess
import sys

PORT = os.environ.get("PORT", "7860")
sys.exit(subprocess.call([sys.executable, "-m", "patchword", "serve", "--host", "0.0.0.0", "--port", PORT]))
