#!/bin/sh
# Bring Chromium for tests/test_lab.py where no browser is installed and apt-get can: as root on Debian and its kin.
# Elsewhere say what to do; the tests that need a browser are skipped then, and say so.
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "==> installing Chromium for the tests of JupyterLab (apt-get)"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get -qq -o Acquire::Retries=2 update && apt-get -qq install --no-install-recommends chromium; } >/dev/null && exit 0
  echo "apt-get could not install Chromium, see above" >&2
fi
echo "==> no browser, so JupyterLab will not be tested: apt-get install chromium (as root) brings one" >&2
