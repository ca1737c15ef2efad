# Installs Debian packages when that is allowed, else says in one sentence which command would. Sourced by the scripts beside it.

# Usage: apt_install "what they are for" package...
apt_install() {
  local purpose=$1
  shift
  local -a become=()
  if [ "$(id -u)" -ne 0 ]; then
    become=(sudo)
  fi
  if ! command -v apt-get >/dev/null || { [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; }; then
    echo "$purpose: these packages are missing; please run: ${become[*]} apt-get update && ${become[*]} apt-get install -y $*" >&2
    return 1
  fi
  echo "Installing $*" >&2
  local -a quiet=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  # An outdated index of some other source must not stop an install that can succeed.
  "${become[@]}" "${quiet[@]}" update >&2 || true
  "${become[@]}" "${quiet[@]}" install -y --no-install-recommends "$@" </dev/null >&2
}
