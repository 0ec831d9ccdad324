#!/usr/bin/env bash
# Installs everything that the tests need, on Debian 12, as root:
#
#   packages   real servers and clients (Postfix, HAProxy, nginx, swaks, msmtp), strace, valgrind, network tools
#   .lab/exim, .lab/opensmtpd
#              mail servers that conflict with Postfix: their packages are unpacked, not installed
#   .lab/haraka
#              Haraka, from npm
#   .lab/node-mail
#              smtp-server and nodemailer, from npm
#   users      the accounts that Exim and OpenSMTPD drop their privileges to
#
# It removes nothing, starts no service, asks nothing, and is quick when all is there: every step
# leaves a stamp named after what it installed, and a changed step makes its own stamp stale.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly LAB=$PWD/.lab
readonly HARAKA_VERSION=3.3.4
readonly SMTP_SERVER_VERSION=3.21.6
readonly NODEMAILER_VERSION=10.6.0
readonly PACKAGES=(
    postfix haproxy nginx-light libnginx-mod-stream libnginx-mod-mail
    swaks libnet-ssleay-perl msmtp curl openssl ca-certificates
    strace valgrind libc6-dbg
    iproute2 ethtool netcat-openbsd procps util-linux systemd
    python3 gcc g++ libc6-dev make pkg-config git
)
# The unpacked servers; a new number unpacks again.
readonly UNPACK_REVISION=1

fail() {
    echo "install: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "needs root: packages and the accounts of mail servers are installed"
command -v apt-get >/dev/null || fail "needs Debian 12 (apt-get is missing)"

export DEBIAN_FRONTEND=noninteractive
export LC_ALL=C
mkdir -p "$LAB/stamps" "$LAB/debs"

# The package lists are fetched at most once in a run, and only if something is missing.
lists_are_fresh=no
apt() {
    apt-get -q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -o APT::Sandbox::User=root "$@"
}
refresh_lists() {
    [ "$lists_are_fresh" = no ] || return 0
    echo "install: apt-get update"
    local attempt
    for attempt in 1 2 3; do
        if apt update >"$LAB/apt-update.log" 2>&1; then
            lists_are_fresh=yes
            return 0
        fi
        sleep $((attempt * 5)) # another apt-get may hold the lock of the lists
    done
    cat "$LAB/apt-update.log" >&2
    fail "apt-get update failed"
}

# step NAME KEY COMMAND…: runs the command unless it already succeeded with this key.
step() {
    local name=$1 key=$2
    shift 2
    local stamp=$LAB/stamps/$name
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$key" ]; then
        echo "install: $name: done before ($key)"
        return 0
    fi
    echo "install: $name: $key"
    rm -f "$stamp"
    "$@"
    echo "$key" >"$stamp"
}

# Nothing that we install may start a service: a Postfix on port 25 is nobody's wish here.
readonly POLICY=/usr/sbin/policy-rc.d
own_policy=no
forbid_services() {
    [ ! -e "$POLICY" ] || return 0
    own_policy=yes
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}
allow_services() {
    [ "$own_policy" = no ] || rm -f "$POLICY"
    own_policy=no
}
trap allow_services EXIT

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]
}

install_packages() {
    local missing=()
    local package
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} = 0 ]; then
        echo "install: packages: all are there"
        return 0
    fi
    echo "install: packages: installing ${missing[*]}"
    refresh_lists
    # A package that would drive another one out is a mistake in the list above.
    local removed
    removed=$(apt -s install --no-install-recommends "${missing[@]}" | awk '/^Remv/ { print $2 }')
    [ -z "$removed" ] || fail "installing ${missing[*]} would remove ${removed//$'\n'/ }: not done"
    # The tests bring their own configuration; an installed Postfix keeps its own.
    is_installed postfix ||
        echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
    forbid_services
    apt -y install --no-install-recommends "${missing[@]}" >"$LAB/apt-install.log" 2>&1 || {
        tail -30 "$LAB/apt-install.log" >&2
        fail "apt-get install failed (the whole log: $LAB/apt-install.log)"
    }
    allow_services
}

# unpack PACKAGE FOLDER: the package and those of its dependencies that are not installed, unpacked.
unpack() {
    local package=$1 folder=$2
    refresh_lists
    local wanted
    wanted=$(apt -s install --no-install-recommends "$package" |
        awk '/^Inst/ && $2 !~ /-(config|common)$/ { print $2 }')
    grep -qx "$package" <<<"$wanted" || wanted+=" $package"
    rm -rf "$folder" "$LAB/debs/$package"
    mkdir -p "$folder" "$LAB/debs/$package"
    # shellcheck disable=SC2086 # one word per package
    (cd "$LAB/debs/$package" && apt download $wanted >"$LAB/download-$package.log" 2>&1) || {
        cat "$LAB/download-$package.log" >&2
        fail "apt-get download of" $wanted "failed"
    }
    local deb
    for deb in "$LAB/debs/$package"/*.deb; do
        dpkg -x "$deb" "$folder"
        echo "install:   unpacked ${deb##*/}"
    done
}

# system_user NAME FOLDER: an account that cannot log in.
system_user() {
    getent group "$1" >/dev/null || groupadd --system "$1"
    getent passwd "$1" >/dev/null ||
        useradd --system --gid "$1" --home-dir "$2" --no-create-home --shell /usr/sbin/nologin "$1"
}

# runs_with_its_libraries BINARY FOLDER: nothing of what the unpacked binary links to is missing.
runs_with_its_libraries() {
    local missing
    missing=$(LD_LIBRARY_PATH=$2/usr/lib:$2/usr/lib/$(gcc -print-multiarch) ldd "$1" | grep 'not found' || true)
    [ -z "$missing" ] || fail "$1 lacks libraries: $missing"
}

install_exim() {
    unpack exim4-daemon-heavy "$LAB/exim"
    runs_with_its_libraries "$LAB/exim/usr/sbin/exim4" "$LAB/exim"
}

install_opensmtpd() {
    unpack opensmtpd "$LAB/opensmtpd"
    runs_with_its_libraries "$LAB/opensmtpd/usr/sbin/smtpd" "$LAB/opensmtpd"
}

# What the unpacked servers need outside of .lab; made anew whenever it is gone.
prepare_accounts() {
    system_user Debian-exim /var/spool/exim4
    system_user opensmtpd /var/lib/opensmtpd/empty
    system_user opensmtpq /var/lib/opensmtpd/empty
    # Compiled into OpenSMTPD: its empty root, its queue and its helpers. The tests mount over the
    # last two in a mount namespace of their own, so only the names must exist.
    mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd /usr/libexec/opensmtpd
    chmod 755 /var/lib/opensmtpd/empty
    chmod 711 /var/spool/smtpd
    echo "install: accounts and folders of Exim and OpenSMTPD: there"
}

node_major() {
    node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/'
}

install_node() {
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        install_packages nodejs npm
    fi
    [ "$(node_major)" -ge 20 ] ||
        fail "Haraka $HARAKA_VERSION needs Node.js 20 or newer, here is $(node --version): install it from https://nodejs.org"
}

# The overrides let npm take what a registry mirror has when it lags behind the newest mail parsers.
install_haraka() {
    rm -rf "$LAB/haraka"
    mkdir -p "$LAB/haraka"
    cat >"$LAB/haraka/package.json" <<JSON
{
  "private": true,
  "dependencies": { "Haraka": "$HARAKA_VERSION" },
  "overrides": {
    "encoding-japanese": ">=2.2", "libqp": ">=2", "libbase64": ">=1.3", "libmime": ">=5.3"
  }
}
JSON
    install_from_npm haraka
    [ -x "$LAB/haraka/node_modules/.bin/haraka" ] || fail "Haraka was installed without its program"
}

install_node_mail() {
    rm -rf "$LAB/node-mail"
    mkdir -p "$LAB/node-mail"
    cat >"$LAB/node-mail/package.json" <<JSON
{
  "private": true,
  "dependencies": { "smtp-server": "$SMTP_SERVER_VERSION", "nodemailer": "$NODEMAILER_VERSION" }
}
JSON
    install_from_npm node-mail
}

# install_from_npm FOLDER: what .lab/FOLDER/package.json names.
install_from_npm() {
    local log=$LAB/npm-$1.log
    (cd "$LAB/$1" && npm install --no-audit --no-fund --ignore-scripts --omit=optional >"$log" 2>&1) || {
        tail -20 "$log" >&2
        fail "npm install in .lab/$1 failed (the whole log: $log)"
    }
}

install_packages "${PACKAGES[@]}"
step node "Node.js 20 or newer, npm" install_node
step exim "exim4-daemon-heavy unpacked, revision $UNPACK_REVISION" install_exim
step opensmtpd "opensmtpd unpacked, revision $UNPACK_REVISION" install_opensmtpd
prepare_accounts
step haraka "Haraka $HARAKA_VERSION" install_haraka
step node-mail "smtp-server $SMTP_SERVER_VERSION, nodemailer $NODEMAILER_VERSION" install_node_mail
echo "install: ready"
