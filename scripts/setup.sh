#!/usr/bin/env bash
# Sets up .venv and the system packages that rendering needs, from nothing, on a bare Debian 12.
# Names of further Debian packages may follow: the tests ask for the browser they drive.
set -euo pipefail
cd "$(dirname "$0")/.."

# What each package is for: venv (Debian splits it off), and EGL rendering without a screen.
missing=()
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
for package in libegl1 libopengl0 libgl1-mesa-dri "$@"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  if ((EUID == 0)); then as_root=(); else as_root=(sudo -n); fi
  if command -v apt-get >/dev/null && { ((EUID == 0)) || sudo -n true 2>/dev/null; }; then
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
  else
    echo "hildaft setup: please install: ${missing[*]} (for example: sudo apt-get install ${missing[*]})" >&2
    exit 1
  fi
fi

python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "hildaft setup: Python $(python3 -V | cut -d" " -f2) found, 3.10 or newer is needed" >&2
  exit 1
}
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet -c constraints.txt -e ".[learn,sim,console,datasets,video,t5,dev]"
touch .venv/.ready
