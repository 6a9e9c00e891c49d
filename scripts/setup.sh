# Sourced by the scripts: what each needs on a fresh machine, installed once.

# say prints a step.
say() { printf '%s\n' "$*" >&2; }

# apt installs Debian packages that are missing, as root or with sudo.
apt() {
  local sudo=
  [[ $(id -u) == 0 ]] || sudo=sudo
  command -v apt-get >/dev/null || { say "missing: $*; install them by hand, since this is not Debian"; return 1; }
  say "installing $*"
  $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need_go wants Go 1.21 or later: a later toolchain is fetched by Go itself, if the module asks for one.
need_go() {
  command -v go >/dev/null || { [[ -x /usr/local/go/bin/go ]] && PATH=$PATH:/usr/local/go/bin; }
  command -v go >/dev/null || apt golang-go ca-certificates || { say "Go is missing: install Go 1.26"; return 1; }
}

# need_node wants Node.js and npm, for the oracles of the tests.
need_node() { command -v npm >/dev/null || apt nodejs npm ca-certificates; }

# build_espalier builds the static binary into bin/.
build_espalier() {
  say "building bin/espalier"
  (cd "$root" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(describe)" -o bin/espalier ./cmd/espalier)
}

# describe is the version of this checkout.
describe() { git -C "$root" describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev; }
