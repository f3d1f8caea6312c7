#!/bin/sh
# Install what some tests look at, where it is missing and apt-get can (as root on Debian and its kin): Chromium for
# test_lab.py, Xvfb for test_gui.py. Elsewhere say what to do; these tests are skipped then.
has() {
  for name in "$@"; do
    command -v "$name" >/dev/null && return 0
  done
  return 1
}
missing=""
has chromium chromium-browser google-chrome google-chrome-stable || missing="chromium"
has Xvfb || missing="${missing:+$missing }xvfb"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && has apt-get; then
  echo "==> installing what tests look at: $missing (apt-get)"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086  # one word a package
  { apt-get -qq -o Acquire::Retries=2 update && apt-get -qq install --no-install-recommends $missing; } >/dev/null && exit 0
  echo "apt-get could not install $missing, see above" >&2
fi
echo "==> not tested for want of $missing: JupyterLab or windows. 'apt-get install $missing' (as root) installs it" >&2
